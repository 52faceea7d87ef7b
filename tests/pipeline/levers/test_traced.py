"""A denoiser that is traced once for each shape."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch

from batchgen.pipeline.levers.traced import TracedForward


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.calls = 0

    def forward(self, sample, time, encoder_hidden_states, added_cond_kwargs=None, return_dict=True):
        self.calls += 1
        added = added_cond_kwargs["ids"].sum() if added_cond_kwargs else 0
        result = sample * self.weight + time + encoder_hidden_states.sum() + added
        return SimpleNamespace(sample=result) if return_dict else (result,)


@torch.inference_mode()
@pytest.mark.parametrize("added", [None, {"ids": torch.ones(2, 6)}])
def test_each_shape_is_traced_once_and_gives_what_the_denoiser_gives(added):
    denoiser = Denoiser()
    traced = TracedForward(denoiser)
    for rows, calls in ((2, 1), (2, 1), (3, 2), (2, 2)):
        sample, texts = torch.randn(rows, 4), torch.randn(rows, 5)
        got = traced(sample, 7, encoder_hidden_states=texts, added_cond_kwargs=added)[0]
        assert denoiser.calls == calls
        expected = sample * 2 + 7 + texts.sum() + (added["ids"].sum() if added else 0)
        assert torch.allclose(got, expected)
