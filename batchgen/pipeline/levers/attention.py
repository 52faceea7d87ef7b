"""Which kernel computes attention. It is tried by running it, because not all kernels run everywhere."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from batchgen.errors import in_one_line
from batchgen.memory.refused import memory_was_refused

# The kernels of SDPA (torch.nn.attention.SDPBackend). sdpa lets torch choose; plain computes step by step.
_KERNELS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION", "plain": "MATH"}
_TOKENS = 64


def usable_attention(wanted: str, denoiser: Any, device: torch.device, dtype: torch.dtype) -> tuple[str, str | None]:
    """The backend to use, which is `wanted` or sdpa, and why `wanted` cannot be used here (None if it can).

    An error that means that memory was refused passes unchanged, because a full device says nothing about a backend.
    """
    if wanted == "sdpa":
        return wanted, None
    try:
        for width in sorted(_head_widths(denoiser)):
            query = torch.zeros(1, 2, _TOKENS, width, device=device, dtype=dtype)
            _tried(wanted, query)
    except Exception as error:  # each backend fails in its own ways
        if memory_was_refused(error):
            raise
        kind = f"{type(error).__name__}: " if str(error).strip() else ""
        return "sdpa", kind + in_one_line(error)
    return wanted, None


def _tried(backend: str, query: torch.Tensor) -> None:
    # query: (1, heads, tokens, head width)
    if backend == "xformers":
        from xformers.ops import memory_efficient_attention

        swapped = query.transpose(1, 2).contiguous()
        memory_efficient_attention(swapped, swapped, swapped)
    else:
        with attention_kernel(backend):
            F.scaled_dot_product_attention(query, query, query)


def attention_kernel(backend: str) -> AbstractContextManager[Any]:
    """A context in which scaled_dot_product_attention uses only this kernel."""
    if backend not in _KERNELS:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel: Callable[..., AbstractContextManager[Any]] = sdpa_kernel
    return kernel([getattr(SDPBackend, _KERNELS[backend])])


def _head_widths(denoiser: Any) -> set[int]:
    # The attention layers of diffusers know their number of heads.
    layers = (module for module in denoiser.modules() if hasattr(module, "to_q") and hasattr(module, "heads"))
    return {layer.to_q.out_features // layer.heads for layer in layers}
