"""Upsampling layers that convolve before they enlarge: the same values by four ninths of the arithmetic.

A 3x3 convolution of an image whose places are each doubled meets the same place up to four times. Of each output's nine
weights, those that meet one place are added up first: what is left are four 2x2 convolutions of the small image, one
for each phase of the large one (Shi et al. 2016, arXiv 1609.07009, has the equivalence).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

# Which of three weights in a row each of two places gets: for even outputs, whose place is the second, and odd ones.
_SUMS = (((0,), (1, 2)), ((0, 1), (2,)))


def by_phases_of(model: Any) -> dict[Any, Callable[..., torch.Tensor]]:
    """The layers of a model that double a map's edges and convolve it, each with a forward as `by_phases` gives it."""
    layers = (module for module in model.modules() if type(module).__name__ == "Upsample2D" and _fits(module))
    return {layer: by_phases(layer) for layer in layers}


def _fits(module: Any) -> bool:
    conv = getattr(module, "conv", None)
    return (
        module.interpolate
        and module.use_conv
        and not module.use_conv_transpose
        and module.norm is None
        and type(conv) is torch.nn.Conv2d
        and (conv.kernel_size, conv.padding, conv.stride) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
    )


def by_phases(module: Any) -> Callable[..., torch.Tensor]:
    """A forward that gives what the layer gives, up to rounding, of maps (rows, channels, high, wide)."""
    plain = module.forward

    def forward(maps: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        if output_size is not None:  # edges that are not doubled
            enlarged: torch.Tensor = plain(maps, output_size)
            return enlarged
        rows, _, high, wide = maps.shape
        weight, bias = module.conv.weight, module.conv.bias
        phases = [(down, right) for down in (0, 1) for right in (0, 1)]
        together = torch.cat([_phase(weight, *phase) for phase in phases])
        biases = None if bias is None else bias.repeat(len(phases))
        made = functional.conv2d(maps, together, biases, padding=1)  # (rows, 4 x channels, high + 1, wide + 1)
        parts = made.view(rows, len(phases), -1, high + 1, wide + 1)
        placed = [
            parts[:, place, :, down : down + high, right : right + wide] for place, (down, right) in enumerate(phases)
        ]
        lines = [torch.stack(placed[start : start + 2], dim=-1) for start in (0, 2)]  # columns side by side
        return torch.stack(lines, dim=-3).reshape(rows, -1, 2 * high, 2 * wide)

    return forward


def _phase(weight: torch.Tensor, down: int, right: int) -> torch.Tensor:
    # (to, from, 3, 3) -> (to, from, 2, 2), added up in fp32
    exact = weight.float()
    lines = torch.stack([sum(exact[:, :, one] for one in ones) for ones in _SUMS[down]], dim=2)  # type: ignore[misc]
    summed = torch.stack([sum(lines[..., one] for one in ones) for ones in _SUMS[right]], dim=3)  # type: ignore[misc]
    return summed.to(weight.dtype)
