"""Guidance with a scale for each row, in each of the ways in which pipelines take it."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.models.families.scales import RowGuidance, TurnsOfRows, embedded, sizes_in_order

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


def test_a_scale_takes_turns_over_the_rows_step_after_step():
    scale = TurnsOfRows([2.0, 3.0])
    assert [float(scale * torch.tensor(1.0)) for _ in range(5)] == [2, 3, 2, 3, 2]
    assert scale > 0 and not TurnsOfRows([0.0, 1.0]) > 0


def test_an_embedded_scale_is_each_rows_own_and_only_within_the_context():
    seen = []

    class Denoiser(torch.nn.Module):
        def forward(self, rows, guidance=None):
            seen.append(None if guidance is None else guidance.tolist())

    denoiser, rows = Denoiser(), torch.zeros(2, 3)
    with embedded(denoiser, [1.5, 4.0]):
        denoiser(rows, guidance=torch.full([1], 1.5).expand(2))
        denoiser(rows)
    denoiser(rows, guidance=torch.full([2], 1.5))
    assert seen == [[1.5, 4.0], None, [1.5, 1.5]]


def test_the_sizes_of_negative_prompts_come_to_their_rows():
    seen = []

    class Denoiser(torch.nn.Module):
        def forward(self, rows, added_cond_kwargs):
            seen.append(added_cond_kwargs["time_ids"][:, 0].tolist())

    denoiser, rows = Denoiser(), torch.zeros(6, 4)
    ids = torch.tensor([[1.0] * 6, [2.0] * 6]).repeat(3, 1)  # as the pipeline makes them for three images
    with sizes_in_order(denoiser):
        denoiser(rows, added_cond_kwargs={"time_ids": ids, "text_embeds": None})
    denoiser(rows, added_cond_kwargs={"time_ids": ids})
    assert seen == [[1, 1, 1, 2, 2, 2], [1, 2, 1, 2, 1, 2]]
