"""Decoding in tiles: the same bits as by diffusers' own blending."""

import pytest

pytest.importorskip("torch")

import torch
from diffusers import AutoencoderKL

from batchgen.pipeline.tiling import blend, set_tiling


def vae(dtype):
    torch.manual_seed(0)
    blocks = ("DownEncoderBlock2D", "DownEncoderBlock2D"), ("UpDecoderBlock2D", "UpDecoderBlock2D")
    return AutoencoderKL(
        down_block_types=blocks[0], up_block_types=blocks[1], block_out_channels=(4, 8), norm_num_groups=2
    ).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(32, 32), (40, 72), (17, 64), (9, 9)], ids=str)
def test_tiled_images_have_the_same_bits(size, dtype):
    model, latents = vae(dtype), torch.randn(2, 4, *size).to(dtype)
    with torch.inference_mode():
        set_tiling(model, 32, 2)
        ours = model.decode(latents).sample
        del model.blend_v, model.blend_h
        theirs = model.decode(latents).sample
        set_tiling(model, 0, 2)
        whole = model.decode(latents).sample
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, whole) == (max(size) <= 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("extent", [0, 1, 24, 128])
def test_borders_have_the_same_bits(extent, dtype):
    before, tile = (torch.randn(2, 3, 40, 56).to(dtype) for _ in range(2))
    theirs = vae(torch.float32)
    assert torch.equal(blend(before, tile.clone(), extent, dim=2), theirs.blend_v(before, tile.clone(), extent))
    assert torch.equal(blend(before, tile.clone(), extent, dim=3), theirs.blend_h(before, tile.clone(), extent))
