"""A pipeline in memory, set up by a policy: its placement, memory format, attention and denoiser's calls."""

import dataclasses
import gc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from batchgen.memory.refused import memory_was_refused
from batchgen.models.find import ModelFiles, vae_wants_fp32
from batchgen.pipeline.guidance import in_two_passes
from batchgen.pipeline.levers.activations import shrink_activations
from batchgen.pipeline.levers.attention import attention_kernel, usable_attention
from batchgen.pipeline.levers.compiled import CompiledCalls, why_not
from batchgen.pipeline.levers.graphs import Recorder
from batchgen.pipeline.levers.traced import TracedForward
from batchgen.pipeline.load import DTYPES, load_pipeline
from batchgen.pipeline.lora import Merger
from batchgen.pipeline.placement import Placement, components
from batchgen.placements import UNHOOKED
from batchgen.policy import Policy
from batchgen.types import Lora


class LoadedModel:
    """One model on one device. `pipe` is the pipeline; call `apply` before the first stage."""

    def __init__(
        self, model: ModelFiles, scheduler: str, dtype: str, device: torch.device, loras: Mapping[str, Path]
    ) -> None:
        """`loras`: where LoRA files are, by digest, if not where they were planned."""
        self._loras = loras
        self._warmed: set[Any] = set()
        self._why_not: dict[str, str | None] = {}  # by what is to be compiled; to try it takes a moment
        self._recorder = Recorder()
        self._source = (model, scheduler, dtype)
        self._family = model.family
        self._device = device
        self.pipe: Any = None
        self._load()

    def _load(self) -> None:
        self.pipe = load_pipeline(*self._source)
        shrink_activations(self._denoiser)
        if self._source[2] == "fp16" and vae_wants_fp32(self._family, self.pipe.vae.config):
            self.pipe.vae.to(torch.float32)
        self.vae_dtype: torch.dtype = self.pipe.vae.dtype
        self._merger: Merger | None = Merger(self.pipe, self._family, self._device, self._loras)
        self._placement: Placement | None = None
        self._layout: tuple[str, bool] | None = None
        self._forward: Any = None
        self._compiled: CompiledCalls | None = CompiledCalls(
            self._denoiser, self.pipe.vae, self._warmed, self._recorder, self._do_without_graphs
        )
        self._calls: tuple[bool, bool, str] | None = None
        self._attention = "sdpa"
        self._applied: tuple[Policy, Policy, str | None] | None = None

    @property
    def _denoiser(self) -> Any:
        return getattr(self.pipe, self._family.denoiser)

    def apply(self, policy: Policy) -> tuple[Policy, str | None]:
        """Set the model up. Returns the policy that the device can run, and why if it differs (otherwise None)."""
        if self._applied is None or self._applied[0] != policy:
            self._applied = None  # what fails half way is done again
            self._applied = (policy, *self._set_up(policy))
        return self._applied[1:]

    def _set_up(self, policy: Policy) -> tuple[Policy, str | None]:
        layout = (policy.placement, policy.channels_last)
        if self._layout not in (None, layout):
            self.reload()
        if self._layout is None:
            self._place(*layout)
        assert self._placement is not None
        self._placement.stream_ahead(policy.stream_buffers)
        attention, why = self._usable(policy.attention)
        self._set_attention(attention)
        compile, uncompiled = self._compilable(policy.compile)
        self._set_calls(policy.traced, policy.guidance_split, compile)
        return dataclasses.replace(policy, attention=attention, compile=compile), why or uncompiled

    def merge(self, loras: tuple[Lora, ...]) -> None:
        """Make the weights those of the model with these LoRA files; others are taken out. Raises ModelError."""
        assert self._placement is not None and self._merger is not None, "apply comes first"
        self._merger.use(loras, self._placement.homes)

    def enter(self, stage: str) -> None:
        """Bring the stage's weights to the device."""
        assert self._placement is not None, "apply comes first"
        self._placement.enter(stage)

    def settle(self, size: tuple[int, int]) -> None:
        """See that CUDA graphs fit what is denoised next, images of this size in pixels. `enter` comes first."""
        assert self._compiled is not None
        self._compiled.settle(size)

    def attention(self) -> Any:
        """A context in which attention is computed with the policy's backend."""
        return attention_kernel(self._attention)

    def warming(self) -> AbstractContextManager[None]:
        """A context in which what the policy compiles is compiled for the shapes of the calls."""
        assert self._compiled is not None
        return self._compiled.warming()

    def decoder(self, whole: bool) -> Callable[..., Any]:
        """The VAE's decode as the policy says; `whole`: for a decode chunk that is not tiled."""
        assert self._calls is not None and self._compiled is not None, "apply comes first"
        is_compiled = whole and self._calls[2] != "eager"
        decode: Callable[..., Any] = self._compiled.decode if is_compiled else self.pipe.vae.decode
        return decode

    def reload(self) -> None:
        """Drop the pipeline with its hooks and half-moved weights, then load it again."""
        self._forget_graphs()
        self.pipe = self._placement = self._forward = self._merger = self._compiled = None
        self.collect()
        self._load()

    def recover(self) -> None:
        """Free what can be freed after an out-of-memory error. Every weight, hook and dtype is restored."""
        self._forget_graphs()
        if self._layout is not None and self._layout[0] in UNHOOKED:
            assert self._placement is not None
            self._placement.leave()
            self.collect()
            if self._restore_vae():
                return
        self.reload()  # hooks may have stopped half way

    def collect(self) -> None:
        """Give back to the device memory that nothing uses and that was kept for later."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _restore_vae(self) -> bool:
        # The error may have stopped it half way to another dtype or back. False if there is no memory even for this.
        if all(weight.dtype == self.vae_dtype for weight in self.pipe.vae.parameters()):
            return True
        try:
            self.pipe.vae.to(self.vae_dtype)
        except Exception as error:
            if not memory_was_refused(error):
                raise
            return False
        return True

    def _place(self, placement: str, channels_last: bool) -> None:
        if channels_last:
            parts = [*components(self.pipe, self._family, "denoise"), *components(self.pipe, self._family, "decode")]
            for module in parts:
                if any(weight.dim() == 5 for weight in module.parameters()):
                    continue  # of films: torch has no such format for them
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._placement = Placement(self.pipe, self._family, placement, self._device)
        self._layout = (placement, channels_last)
        self._forward = self._denoiser.forward

    def _usable(self, attention: str) -> tuple[str, str | None]:
        if attention == "xformers" and not self._family.convolutional:
            return "sdpa", f"xformers is not used with {self._family.title}"
        return usable_attention(attention, self._denoiser, self._device, DTYPES[self._source[2]])

    def _compilable(self, wanted: str) -> tuple[str, str | None]:
        # How the denoiser can be compiled here, and why it is not as wanted
        for compile in (wanted, "whole") if wanted == "graphs" else (wanted,):
            if compile not in self._why_not:
                self._why_not[compile] = why_not(compile, self._denoiser, self._device)
            if self._why_not[compile] is None:
                return compile, self._why_not[wanted]
        return "eager", self._why_not[wanted]

    def _do_without_graphs(self, why: str) -> None:
        # The next `apply` says so.
        self._why_not["graphs"] = f"the denoiser cannot be recorded as a CUDA graph: {why}"
        self._applied = None

    def _forget_graphs(self) -> None:
        if self._compiled is not None:
            self._compiled.forget_graphs()

    def _set_attention(self, attention: str) -> None:
        if attention == self._attention:
            return
        self._forget_graphs()  # they launch the kernels of the other one
        if "xformers" in (attention, self._attention):
            switch = "enable" if attention == "xformers" else "disable"
            getattr(self._denoiser, f"{switch}_xformers_memory_efficient_attention")()
        self._attention = attention

    def _set_calls(self, traced: bool, split: bool, compile: str) -> None:
        if self._calls == (traced, split, compile):
            return
        assert self._compiled is not None
        if compile != "graphs":
            self._compiled.forget_graphs()
        denoiser = self._denoiser
        denoiser.forward = self._forward
        if traced:
            denoiser.forward = TracedForward(denoiser)
        is_doubled = self._family.doubled and not split
        denoiser.forward = self._compiled.forward(
            compile, denoiser.forward, lambda: is_doubled and self.pipe.do_classifier_free_guidance
        )
        if split and self._family.doubled:
            denoiser.forward = in_two_passes(denoiser.forward)
        self._calls = (traced, split, compile)
