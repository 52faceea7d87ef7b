"""Compiled calls: torch.compile turns a denoiser and a VAE into fewer kernels, for one shape at a time.

Inductor is held to its deterministic mode, in which no kernel is chosen by timing: a second process makes the same code
and so the same bits, with or without what the first one left in the cache.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch.utils._pytree import tree_map

from batchgen.errors import in_one_line
from batchgen.pipeline.levers.graphs import GraphedCall, Places, Recorder
from batchgen.pipeline.levers.norms import norms_by_channels
from batchgen.pipeline.levers.prefix import Forwards, shared, swapped
from batchgen.pipeline.levers.upsampling import by_phases_of

# What Inductor is told.
_OPTIONS = {"deterministic": True}
# How many shapes of one function are kept: sizes of images, with and without guidance.
_MOST_SHAPES = 64


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, compiled anew for each shape that it is given."""
    _keep_shapes()
    made: Callable[..., Any] = torch.compile(call, dynamic=False, options=dict(_OPTIONS))
    return made


def why_not(compile: str, denoiser: Any, device: torch.device) -> str | None:
    """Why the denoiser cannot be compiled here; None if it can. A small function is compiled to find out."""
    if compile == "eager":
        return None
    if compile == "blocks" and not getattr(denoiser, "_repeated_blocks", None):
        return f"diffusers names no repeated blocks of {type(denoiser).__name__}"
    if compile == "graphs" and device.type != "cuda":
        return "CUDA graphs need a GPU"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        compiled(_small)(torch.ones(8, device=device))
    except Exception as error:  # a compiler that is missing or broken shows itself in many ways
        return in_one_line(error)
    return None


def _small(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + 1


class CompiledCalls:
    """A denoiser's and a VAE's calls, eager and compiled, or compiled and recorded as CUDA graphs.

    Only what is called while `warming` is compiled. Later calls use that code if their shapes are the same, and are
    computed eagerly if not: a run never waits for a compiler in the middle of a shard.
    """

    def __init__(
        self,
        denoiser: Any,
        vae: Any,
        known: set[Any],
        recorder: Recorder | None = None,
        gave_up: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`known`: the shapes that were warmed up, which outlive a model that is loaded again.

        `gave_up` is told why, if a call cannot be recorded by `recorder`; it is then compiled and nothing more.
        """
        self._denoiser = denoiser
        self._vae = vae
        self._made: dict[str, Callable[..., Any]] = {}
        self._known = known
        self._is_warming = False
        self._recorder, self._gave_up = recorder or Recorder(), gave_up
        self._graphed: dict[str, GraphedCall] = {}
        self._settled: tuple[tuple[int, int], list[int]] = ((0, 0), [])

    @contextmanager
    def warming(self) -> Iterator[None]:
        """A context in which calls are compiled for their shapes."""
        self._is_warming = True
        try:
            yield
        finally:
            self._is_warming = False

    def forward(self, compile: str, plain: Callable[..., Any], is_doubled: Callable[[], bool]) -> Callable[..., Any]:
        """The denoiser's forward under the policy's `compile`; `plain` is its eager form.

        `is_doubled`: whether the rows of a call are those of the prompts, and then the same with negative prompts.
        """
        if compile == "eager":
            return plain
        if compile == "blocks":
            return self._for_known("blocks", plain, self._in_blocks(plain))
        alone = self._whole("alone", compile, plain, self._faster)
        if not self._shared:
            return alone
        both = self._whole("both", compile, plain, self._faster | self._shared)

        def forward(*given: Any, **named: Any) -> Any:
            return (both if is_doubled() else alone)(*given, **named)

        return forward

    def settle(self, size: tuple[int, int]) -> None:
        """Forget graphs of another size, and all if a weight or a buffer has moved. Call it before denoising begins.

        `size`: of the images, in pixels. So graphs never take more memory than those of one size.
        """
        if self._graphed and (now := (size, self._weights.now())) != self._settled:
            self._settled = now
            self.forget_graphs()

    def forget_graphs(self) -> None:
        """Give up the memory that graphs keep. They are recorded again when they are needed."""
        for graphed in self._graphed.values():
            graphed.forget()
        self._recorder.forget()

    @property
    def decode(self) -> Callable[..., Any]:
        """The VAE's decode, compiled if it is one whose decoder is a plain function of its latents."""
        plain: Callable[..., Any] = self._vae.decode
        if type(self._vae).__name__ != "AutoencoderKL":
            return plain
        return self._for_known("decode", plain, _with(self._faster_vae, self._kept("decode", plain)))

    def _for_known(self, name: str, plain: Callable[..., Any], fast: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            key = (name, _shapes((given, named)))
            made = (fast if self._is_warming or key in self._known else plain)(*given, **named)
            if self._is_warming:
                self._known.add(key)
            return made

        return call

    def _kept(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        if name not in self._made:
            self._made[name] = compiled(call)
        return self._made[name]

    def _whole(self, name: str, compile: str, plain: Callable[..., Any], others: Forwards) -> Callable[..., Any]:
        # The denoiser compiled as a whole. What is known and what is compiled is the same with graphs and without.
        made = _filled(_with(others, self._kept(name, plain)))
        if compile == "graphs":
            made = self._graphed.setdefault(name, GraphedCall(made, self._recorder, self._gave_up))
        return self._for_known(name, plain, made)

    @cached_property
    def _weights(self) -> Places:
        return Places(self._denoiser)

    # Compiled code is made for these very forwards, so each is made once.
    @cached_property
    def _faster(self) -> Forwards:
        return _faster(self._denoiser)

    @cached_property
    def _faster_vae(self) -> Forwards:
        return _faster(self._vae)

    @cached_property
    def _shared(self) -> Forwards:
        return shared(self._denoiser, self._faster)

    def _in_blocks(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        kinds = self._denoiser._repeated_blocks
        blocks = [module for module in self._denoiser.modules() if type(module).__name__ in kinds]
        forwards = {block: self._kept(f"block {place}", block.forward) for place, block in enumerate(blocks)}
        return _with(forwards, plain)


def _faster(model: Any) -> Forwards:
    # The layers that compute the same in less time once they are compiled
    return norms_by_channels(model) | by_phases_of(model)


def _with(others: Forwards, call: Callable[..., Any]) -> Callable[..., Any]:
    # The call, while these modules have other forwards
    def forward(*given: Any, **named: Any) -> Any:
        with swapped(others):
            return call(*given, **named)

    return forward


def _filled(call: Callable[..., Any]) -> Callable[..., Any]:
    # The call, with expanded tensors written out, as graphs have them: so what is compiled serves with and without
    def fill(value: Any) -> Any:
        return value.contiguous() if isinstance(value, torch.Tensor) and 0 in value.stride() else value

    def forward(*given: Any, **named: Any) -> Any:
        given, named = tree_map(fill, (given, named))
        return call(*given, **named)

    return forward


def _shapes(value: Any) -> Any:
    # What of a call's arguments decides for which shapes it is compiled
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return tuple((name, _shapes(one)) for name, one in sorted(value.items()))
    return tuple(map(_shapes, value)) if isinstance(value, list | tuple) else None


def _keep_shapes() -> None:
    import torch._dynamo.config as config

    config.recompile_limit = max(config.recompile_limit, _MOST_SHAPES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 64 * _MOST_SHAPES)
