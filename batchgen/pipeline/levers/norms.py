"""Group norms of maps whose channels lie side by side, as compiled convolutions leave them.

Inductor reads such maps group by group, a few channels of each place at a time, which wastes most of what the memory
hands out. Here each channel is measured first, which reads whole places, and a group is put together from its channels.
"""

from collections.abc import Callable
from typing import Any

import torch


def norms_by_channels(model: Any) -> dict[Any, Callable[[torch.Tensor], torch.Tensor]]:
    """The group norms of a model, each with a forward as `by_channels` gives it."""
    norms = (module for module in model.modules() if isinstance(module, torch.nn.GroupNorm) and module.affine)
    return {norm: by_channels(norm) for norm in norms}


def by_channels(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A forward that gives what the norm gives, up to rounding, of maps (rows, channels, places ...).

    The variance of a group is the mean of its channels' variances and the variance of their means.
    """

    def forward(maps: torch.Tensor) -> torch.Tensor:
        rows, channels = maps.shape[:2]
        exact = maps.float()
        within, mean = torch.var_mean(exact, dim=tuple(range(2, maps.dim())), correction=0)  # (rows, channels)
        within, mean = (one.view(rows, norm.num_groups, -1) for one in (within, mean))
        middle = mean.mean(-1, keepdim=True)
        variance = (within + (mean - middle).square()).mean(-1, keepdim=True)
        each = (-1, channels, *(1,) * (maps.dim() - 2))
        scale, middle = (one.expand_as(mean).reshape(each) for one in ((variance + norm.eps).rsqrt(), middle))
        made: torch.Tensor = (exact - middle) * (scale * norm.weight.view(each)) + norm.bias.view(each)
        return made.to(maps.dtype)

    return forward
