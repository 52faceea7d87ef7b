"""Group norms that are put together from their channels give what torch's give."""

import pytest
import torch

from batchgen.pipeline.levers.norms import by_channels, norms_by_channels


@pytest.fixture
def norm():
    torch.manual_seed(5)
    made = torch.nn.GroupNorm(4, 12, eps=1e-6)
    torch.nn.init.normal_(made.weight)
    torch.nn.init.normal_(made.bias)
    return made


@pytest.mark.parametrize("shape", [(3, 12, 5, 7), (2, 12, 9), (1, 12, 1, 1)])
@torch.inference_mode()
def test_it_gives_the_same(norm, shape):
    maps = torch.randn(shape)
    torch.testing.assert_close(by_channels(norm)(maps), norm(maps), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_values_far_from_zero_are_not_lost(norm):
    maps = 1000 + torch.randn(2, 12, 16, 16)
    exact = norm.double()(maps.double())
    norm.float()
    assert (by_channels(norm)(maps) - exact).abs().max() < 1e-3, "what fp32 has left there"


@torch.inference_mode()
def test_half_precision_is_computed_in_fp32(norm):
    maps = 200 + torch.randn(1, 12, 32, 32)
    made = by_channels(norm.half())(maps.half())
    assert made.dtype == torch.float16
    torch.testing.assert_close(made.float(), norm.float()(maps.half().float()), rtol=2e-2, atol=2e-2)


def test_norms_without_weights_are_left_alone(norm):
    bare = torch.nn.GroupNorm(4, 12, affine=False)
    assert list(norms_by_channels(torch.nn.ModuleList([bare, torch.nn.LayerNorm(4), norm]))) == [norm]
