"""LoRA, merged into the weights: W + weight * alpha / rank * up @ down (Hu et al. 2021, arXiv 2106.09685).

Merging needs no layers beside the model's, so a model with a LoRA runs as fast as without, under every placement and
lever. It is computed in fp32 from the original weights, on the device, and rounded once. The original bytes of what was
changed are kept in host memory: weights are restored from them, and never by subtraction.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchgen.errors import ModelError
from batchgen.models.families.base import Family
from batchgen.models.lora import digest
from batchgen.pipeline.lora_file import Change, Place, lora_kind, read_lora
from batchgen.types import Lora

Homes = Callable[[nn.Module], Mapping[str, Tensor]]
"""It gives the tensors that a part's weights come from, by name, to be written."""


class Merger:
    """Merges LoRA files into the weights of a loaded pipeline, and restores them."""

    def __init__(self, pipe: Any, family: Family, device: torch.device, files: Mapping[str, Path]) -> None:
        """Merging is computed on `device`. `files`: where files are, by digest, if not where they were planned."""
        self._kind = lora_kind(family)
        self._parts = {name: part for name in self._kind.parts if (part := getattr(pipe, name, None)) is not None}
        self._device, self._files = device, files
        self._merged: tuple[Lora, ...] | None = ()
        self._originals: dict[Place, Tensor] = {}

    def use(self, loras: tuple[Lora, ...], homes_of: Homes) -> None:
        """Make the weights those of the model with these files. After an error, the next call makes them right.

        Raises ModelError where a file is not the planned one any more.
        """
        if loras == self._merged:
            return
        wanted = self._wanted(loras)
        homes = {(name, key): one for name, part in self._parts.items() for key, one in homes_of(part).items()}
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # copies from the host's memory may still be under way
        self._merged = None
        with torch.inference_mode(False), torch.no_grad():  # what is kept outlives this call
            for place in self._originals.keys() - wanted.keys():
                homes[place].copy_(self._originals[place])
            for place, changes in wanted.items():
                home = homes[place]
                if place not in self._originals:
                    self._originals[place] = home.to("cpu", copy=True)
                home.copy_(self._changed(self._originals[place], changes))
        self._originals = {place: one for place, one in self._originals.items() if place in wanted}
        self._merged = loras

    def _wanted(self, loras: Sequence[Lora]) -> dict[Place, list[tuple[float, Change]]]:
        found: dict[Place, list[tuple[float, Change]]] = {}
        for lora in loras:
            path = self._files.get(lora.sha256, Path(lora.path))
            try:
                is_planned = digest(path) == lora.sha256
            except OSError:
                is_planned = False
            if not is_planned:
                raise ModelError(
                    f"LoRA {path} is not the file that this run was planned with: put the original back, or start a "
                    "new run"
                )
            for place, change in read_lora(self._kind, path, self._parts).changes.items():
                found.setdefault(place, []).append((lora.weight, change))
        return found

    def _changed(self, original: Tensor, changes: Sequence[tuple[float, Change]]) -> Tensor:
        # In fp32 and on one device wherever the weights wait, so that the placement changes no bit
        result = original.to(self._device, torch.float32, copy=True)
        flat = result.contiguous().view(len(result), -1)
        for weight, change in changes:
            scale, up = weight * change.scale, change.up.to(self._device, torch.float32)
            if change.down is None:
                flat.add_(up, alpha=scale)
            else:
                flat.addmm_(up, change.down.to(self._device, torch.float32), alpha=scale)
        return flat.view(result.shape)
