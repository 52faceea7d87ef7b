"""Decoding in tiles as diffusers does it, except that borders are blended at once and not line by line."""

import inspect
from functools import partial
from typing import Any

import torch


def set_tiling(vae: Any, tile_px: int, factor: int) -> None:
    """From now on decode in tiles of `tile_px` that overlap by a quarter, or whole images if it is 0.

    `factor` is the edge in pixels of one place of the latent. Some VAEs of diffusers 0.42.1 take the size as arguments.
    An AutoencoderKL does not, and its config often has a wrong threshold for tiling.
    """
    if not tile_px:
        vae.disable_tiling()
    elif "tile_sample_min_height" in inspect.signature(vae.enable_tiling).parameters:
        vae.enable_tiling(tile_px, tile_px, tile_px * 3 // 4, tile_px * 3 // 4)
    else:
        vae.enable_tiling()
        vae.tile_sample_min_size = tile_px
        vae.tile_latent_min_size = tile_px // factor
        vae.blend_v, vae.blend_h = partial(blend, dim=2), partial(blend, dim=3)


def blend(before: torch.Tensor, tile: torch.Tensor, extent: int, dim: int) -> torch.Tensor:
    """Fade the first `extent` lines of `tile` along `dim` in over the last lines of `before`, in place.

    Both are (rows, channels, height, width). The bits are those of AutoencoderKL's blend_v (dim 2) and blend_h (dim 3).
    """
    extent = min(before.shape[dim], tile.shape[dim], extent)
    share = torch.arange(extent, dtype=torch.float64, device=tile.device) / extent
    shape = [1, 1, 1, 1]
    shape[dim] = extent
    fading_in, fading_out = (one.float().view(shape) for one in (share, 1 - share))
    border = tile.narrow(dim, 0, extent)
    last = before.narrow(dim, before.shape[dim] - extent, extent)
    border.copy_((last * fading_out).to(tile.dtype) + (border * fading_in).to(tile.dtype))
    return tile
