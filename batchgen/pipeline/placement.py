"""Where a model's weights are while it works: on the device, or in host memory, from where they come when needed.

Moving weights changes no bit of an image. Nothing is copied back: the host keeps its copy, and the device drops its.
"""

from typing import Any

import torch

from batchgen.machine.pinned import Pinned, pack
from batchgen.models.families.base import Family
from batchgen.pipeline.streaming import Streamer
from batchgen.placements import PLACEMENTS, Held

STAGES = Held._fields


class Placement:
    """The weights of one pipeline, held as PLACEMENTS says. The pipeline must be on the CPU and have no placement yet.

    The hooks of group and sequential offload cannot be removed reliably; for another placement load the pipeline again.
    """

    def __init__(self, pipe: Any, family: Family, name: str, device: torch.device) -> None:
        self._staged: dict[str, list[Staged | Streamer]] = {stage: [] for stage in STAGES}
        self._at: str | None = None
        self._layered: dict[torch.nn.Module, dict[str, torch.Tensor]] = {}  # the weights of what has none itself
        self._pinned: list[Pinned] = []  # the buffers from which hooks bring weights in
        for stage, how in zip(STAGES, PLACEMENTS[name], strict=True):
            for module in components(pipe, family, stage):
                self._hold(module, stage, how, device)
        _fix_execution_device(pipe, device)

    def _hold(self, module: torch.nn.Module, stage: str, how: str, device: torch.device) -> None:
        if how == "resident":
            module.to(device)
        elif how == "staged":
            self._staged[stage].append(Staged(module, device))
        elif how == "streamed":
            self._staged[stage].append(Streamer(module, device))
        elif how == "layers":
            self._pinned += pack(_tensors(module), device)
            self._layered[module] = _bring_in_by_layers(module, device)
        else:
            self._pinned += pack(_tensors(module), device)
            _group(module, device, "block_level" if how == "blocks" else "leaf_level")

    def stream_ahead(self, buffers: int) -> None:
        """Under weight streaming, have this many groups of the denoiser's layers on the device at once."""
        for part in self._staged["denoise"]:
            if isinstance(part, Streamer):
                part.use_buffers(buffers)

    def enter(self, stage: str) -> None:
        """Bring in the stage's weights and drop those of other stages. They stay until the next stage."""
        if stage == self._at:
            return
        self.leave()
        for part in self._staged[stage]:
            part.enter()
        self._at = stage

    def homes(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The tensors that a module's weights come from, by name. What is written there counts from the next stage."""
        self.leave()
        return self._layered.get(module) or {name: weight.data for name, weight in module.named_parameters()}

    def leave(self) -> None:
        """Drop all staged weights from the device."""
        for parts in self._staged.values():
            for part in parts:
                part.leave()
        self._at = None


class Staged:
    """A module whose weights are on the device between `enter` and `leave`."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self._device = device
        self._tensors = _tensors(module)
        self._pinned = pack(self._tensors, device)
        self._host = [tensor.data for tensor in self._tensors]

    def enter(self) -> None:
        """Copy the weights to the device, in its stream's order.

        The copies are made outside of inference mode: torch multiplies some matrices (those of Sana) in another way, in
        other low bits, where a weight is a tensor of that mode.
        """
        with torch.inference_mode(False):
            for tensor, host in zip(self._tensors, self._host, strict=True):
                tensor.data = host.to(self._device, non_blocking=True, copy=True)

    def leave(self) -> None:
        """Let the device's copy go."""
        for tensor, host in zip(self._tensors, self._host, strict=True):
            tensor.data = host


def components(pipe: Any, family: Family, stage: str) -> list[torch.nn.Module]:
    """The modules of the family's pipeline that a stage runs."""
    if stage == "encode":
        encoders = (getattr(pipe, name, None) for name in family.encoders)
        return [encoder for encoder in encoders if encoder is not None]
    if stage == "denoise":
        return [getattr(pipe, family.denoiser)]
    checker = getattr(pipe, "safety_checker", None)
    return [pipe.vae] if checker is None else [pipe.vae, checker]


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bring_in_by_layers(module: torch.nn.Module, device: torch.device) -> dict[str, torch.Tensor]:
    # The same as diffusers' enable_sequential_cpu_offload, which tests cannot use because it refuses the CPU
    from accelerate import cpu_offload

    weights = module.state_dict()
    cpu_offload(module, device, offload_buffers=len(module._parameters) > 0, state_dict=weights)
    return weights


def _group(module: torch.nn.Module, device: torch.device, level: str) -> None:
    # With streams diffusers pins each tensor by itself, unless it is already pinned.
    from diffusers.hooks import apply_group_offloading

    on_cuda = device.type == "cuda"
    apply_group_offloading(
        module,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type=level,
        num_blocks_per_group=1 if level == "block_level" else None,
        use_stream=on_cuda,
        non_blocking=on_cuda,
        record_stream=on_cuda,
    )


def _fix_execution_device(pipe: Any, device: torch.device) -> None:
    # diffusers computes where its first module is, and that one may be in host memory just now.
    kind = type(pipe)
    pipe.__class__ = type(kind.__name__, (kind,), {"_execution_device": property(lambda _: device)})
