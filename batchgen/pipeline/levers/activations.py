"""A denoiser's activations take less memory here, because diffusers keeps some that are no longer read."""

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn import functional


def shrink_activations(denoiser: torch.nn.Module) -> None:
    """Make a UNet2DConditionModel of diffusers 0.42.1 compute the same values in less memory. Its weights stay.

    Other denoisers stay as they are.

    It is only for inference, because what a gradient needs is overwritten.
    """
    if not isinstance(denoiser, UNet2DConditionModel):
        return
    for module in denoiser.modules():
        if isinstance(module, GEGLU):
            module.__class__ = _GEGLU
            module.proj.__class__ = _GatedLinear
        for name in ("nonlinearity", "conv_act"):
            if isinstance(getattr(module, name, None), torch.nn.SiLU):
                setattr(module, name, _SiLU())


class _GEGLU(GEGLU):  # type: ignore[misc]
    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        gated: torch.Tensor = self.proj(hidden_states)
        return gated


class _GatedLinear(torch.nn.Linear):
    # A transformer block needs most memory here: for values, gate and their product, each four times its width.
    # Computed one by one, values and gate are contiguous, which is also faster. It is still one layer with one weight,
    # as offloading expects.
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        of_values, of_gate = self.weight.chunk(2)
        bias_of_values, bias_of_gate = self.bias.chunk(2)
        gate = torch.ops.aten.gelu_(functional.linear(maps, of_gate, bias_of_gate))
        gated: torch.Tensor = gate.mul_(functional.linear(maps, of_values, bias_of_values))
        return gated


class _SiLU(torch.nn.Module):
    # Maps come from a norm, and nothing else reads them. All blocks read the time embedding, which has two dimensions.
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return functional.silu(maps, inplace=maps.ndim == 4)
