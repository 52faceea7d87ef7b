"""A traced denoiser: its operations are recorded once for each shape and then run without Python between them."""

from collections.abc import Callable
from typing import Any

import torch


class TracedForward:
    """Replaces a denoiser's `forward` and traces it at each new shape (torch.jit.trace)."""

    def __init__(self, denoiser: Any) -> None:
        self._forward: Callable[..., Any] = denoiser.forward
        self._denoiser = denoiser
        self._traces: dict[tuple[Any, ...], Any] = {}

    def __call__(self, sample: torch.Tensor, time: Any, **keywords: Any) -> tuple[torch.Tensor]:
        """The same as the denoiser's forward with return_dict=False. For one shape only tensors may vary."""
        texts = keywords["encoder_hidden_states"]
        added = keywords.get("added_cond_kwargs") or {}
        names = tuple(sorted(added))
        tensors = (sample, torch.as_tensor(time, device=sample.device), texts, *(added[name] for name in names))
        key = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        if key not in self._traces:
            self._traces[key] = self._trace(names, tensors)
        return (self._traces[key](*tensors),)

    def _trace(self, names: tuple[str, ...], tensors: tuple[torch.Tensor, ...]) -> Any:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they say that tracing is deprecated, and that shapes become constants
            trace: Callable[..., Any] = torch.jit.trace
            return trace(_Positional(self._denoiser, self._forward, names), tensors, check_trace=False)


class _Positional(torch.nn.Module):
    # torch.jit.trace takes tensors only by position.
    def __init__(self, denoiser: Any, forward: Callable[..., Any], names: tuple[str, ...]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._plain, self._names = forward, names

    def forward(self, sample: torch.Tensor, time: torch.Tensor, texts: torch.Tensor, *added: torch.Tensor) -> Any:
        conditions = dict(zip(self._names, added, strict=True)) or None
        result = self._plain(sample, time, encoder_hidden_states=texts, added_cond_kwargs=conditions, return_dict=False)
        return result[0]
