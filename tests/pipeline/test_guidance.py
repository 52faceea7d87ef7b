"""Guidance with a scale for each row, and in two passes."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.pipeline.guidance import RowGuidance, in_two_passes

CPU = torch.device("cpu")


def test_row_guidance_scales_each_row_and_offers_nothing_else():
    scale = RowGuidance([2.0, 3.0], CPU)
    rows = torch.ones(2, 4, 2, 2, dtype=torch.float16)
    assert (scale * rows)[:, 0, 0, 0].tolist() == [2.0, 3.0]
    assert (scale * rows).dtype == torch.float16
    assert scale > 1 and not RowGuidance([1.0], CPU) > 1 and RowGuidance([1.0 + 1e-9], CPU) > 1
    assert not hasattr(scale, "__sub__")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_rows_guidance_is_the_number_and_not_one_of_the_models_dtype(dtype):
    scales = [8.0, 8.03, 1.001, 29.97]
    rows = torch.randn((4, 4, 8, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = torch.stack([scale * row for scale, row in zip(scales, rows, strict=True)])  # as diffusers multiplies
    assert torch.equal(RowGuidance(scales, CPU) * rows, expected)
    assert not torch.equal(expected[1], 8.0 * rows[1])


def test_two_passes_see_half_of_the_rows_each():
    seen = []

    def forward(sample, time, texts=None, added=None):
        seen.append((len(sample), float(time), len(texts), len(added["ids"])))
        return (sample * 2,)

    sample = torch.arange(8.0).view(4, 2)
    result = in_two_passes(forward)(sample, torch.tensor(5.0), texts=torch.zeros(4, 3), added={"ids": torch.zeros(4)})
    assert torch.equal(result[0], sample * 2)
    assert seen == [(2, 5.0, 2, 2)] * 2
