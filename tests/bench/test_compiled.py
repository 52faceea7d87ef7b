"""The script by hand, with a compiler that does nothing, and once with torch's."""

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from batchgen.bench import compiled
from batchgen.bench.task import Task

TASK = Task(64, 64, 2, 5.0, rows=9, batches=1)


def run(small, monkeypatch):
    """What the script saved last of each place, and the sizes of what the VAE decoded at once."""
    saved, pieces = {}, []
    pipe = StableDiffusionPipeline.from_pretrained(small)
    pipe.set_progress_bar_config(disable=True)
    decode = pipe.vae.decode

    def noted(latents, **given):
        pieces.append(len(latents))
        return decode(latents, **given)

    pipe.vae.decode = noted
    monkeypatch.setattr(compiled, "_save", lambda pixels, path: saved.update({path: pixels}))
    assert compiled.batch(lambda dtype: pipe, TASK).seconds > 0
    return saved, pieces


def test_it_decodes_eight_at_once_and_writes_every_image(small, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda part: part)
    saved, pieces = run(small, monkeypatch)
    assert pieces == [8, 1, 8, 1]
    assert len(saved) == 9
    assert {(one.shape, one.dtype) for one in saved.values()} == {((64, 64, 3), np.dtype("uint8"))}


@pytest.mark.slow
def test_torch_compiles_it(small, monkeypatch):
    saved, _ = run(small, monkeypatch)
    assert len(saved) == 9 and any(one.std() > 0 for one in saved.values())
