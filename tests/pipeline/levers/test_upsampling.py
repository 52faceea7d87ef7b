"""Layers that convolve before they enlarge give what diffusers' give."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D

from batchgen.pipeline.levers.upsampling import by_phases, by_phases_of


@pytest.fixture
def layer():
    torch.manual_seed(3)
    return Upsample2D(6, use_conv=True, out_channels=5)


@pytest.mark.parametrize("edges", [(1, 1), (4, 7), (8, 8)])
@torch.inference_mode()
def test_it_gives_the_same(layer, edges):
    maps = torch.randn(3, 6, *edges)
    torch.testing.assert_close(by_phases(layer)(maps), layer(maps), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_weights_that_changed_since_count(layer):
    forward, maps = by_phases(layer), torch.randn(1, 6, 4, 4)
    layer.conv.weight.mul_(2)
    torch.testing.assert_close(forward(maps), layer(maps), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_edges_that_are_not_doubled_are_left_to_the_layer(layer):
    maps = torch.randn(1, 6, 4, 4)
    made = by_phases(layer)(maps, (7, 8))
    assert made.shape == (1, 5, 7, 8)
    assert torch.equal(made, layer(maps, (7, 8)))


def test_only_layers_that_double_and_convolve_are_found(layer):
    others = [
        Upsample2D(6, use_conv_transpose=True),
        Upsample2D(6),
        Upsample2D(6, use_conv=True, kernel_size=1, padding=0),
        Upsample2D(6, use_conv=True, norm_type="ln_norm"),
        Upsample2D(6, use_conv=True, interpolate=False),
    ]
    assert list(by_phases_of(torch.nn.ModuleList([*others, layer]))) == [layer]
