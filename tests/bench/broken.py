"""Broken figures for the judge to learn from: what a poor model draws in a subject's colours, and nobody asked for."""

import torch
import torch.nn.functional as F
from torch import Tensor

# A figure and its broken form must differ by this much, as the mean of colours and alpha (0..1) where either is: a ball
# that is mirrored is still a ball.
_LEAST_CHANGE = 0.12
_TILES = 3


def broken_textures(textures: Tensor) -> tuple[Tensor, Tensor]:
    """All sprites broken in each way, and which of them no longer show what they were.

    `textures`: (sprites, 4, edge, edge) in 0..1, alpha multiplied in. Returns (ways, sprites, 4, edge, edge) and
    (ways, sprites) of bool.
    """
    made = torch.stack([way(textures) for way in _WAYS])
    there = torch.maximum(made[:, :, 3:], textures[None, :, 3:])
    change = ((made - textures).abs().mean(2, keepdim=True) * there).sum((2, 3, 4)) / there.sum((2, 3, 4)).clamp(min=1)
    return made, change > _LEAST_CHANGE


def _two_tails(textures: Tensor) -> Tensor:
    half = textures[..., textures.shape[-1] // 2 :]
    return torch.cat((half.flip(-1), half), -1)


def _two_heads(textures: Tensor) -> Tensor:
    half = textures[..., : textures.shape[-1] // 2]
    return torch.cat((half, half.flip(-1)), -1)


def _both_ways(textures: Tensor) -> Tensor:
    return (textures + textures.flip(-1)) / 2


def _without_a_part(textures: Tensor) -> Tensor:
    # The left two fifths, where the heads of animals are
    edge = textures.shape[-1]
    return textures * ((torch.arange(edge, device=textures.device) - 0.4 * edge) / 4).sigmoid()


def _without_the_top(textures: Tensor) -> Tensor:
    edge = textures.shape[-1]
    return textures * ((torch.arange(edge, device=textures.device) - 0.45 * edge) / 4).sigmoid()[:, None]


def _in_pieces(textures: Tensor) -> Tensor:
    piece = textures.shape[-1] // _TILES
    order = torch.randperm(_TILES**2).tolist()
    cut = [textures[..., row * piece : (row + 1) * piece, column * piece : (column + 1) * piece]
           for row in range(_TILES) for column in range(_TILES)]  # fmt: skip
    rows = [torch.cat([cut[place] for place in order[start : start + _TILES]], -1)
            for start in range(0, _TILES**2, _TILES)]  # fmt: skip
    missing = textures.shape[-1] - piece * _TILES
    return F.pad(torch.cat(rows, -2), (0, missing, 0, missing))


def _smeared(textures: Tensor) -> Tensor:
    small = F.adaptive_avg_pool2d(textures, 6)
    return F.interpolate(small, textures.shape[-2:], mode="bicubic").clamp(0, 1)


_WAYS = (
    _two_tails, _two_heads, _both_ways, _without_a_part, _without_the_top, _in_pieces, _in_pieces, _smeared,
)  # fmt: skip
