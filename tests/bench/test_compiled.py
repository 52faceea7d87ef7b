"""The script by hand, with a compiler that does nothing, and once with torch's."""

import importlib
from functools import partial

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from batchgen.bench import compiled, guide
from batchgen.bench.task import Task
from batchgen.pipeline.load import load_pipeline
from tests.bench.jobs import make_job

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flux", "flux2_klein", "qwen_image", "sana", "sd3", "sdxl", "z_image"])
def test_the_scripts_run_for_every_family(tmp_path, monkeypatch, name):
    module = importlib.import_module(f"tests.models.families.test_{name}")
    build = next(one.build for key, one in vars(module).items() if key.startswith("Test") and hasattr(one, "build"))
    build().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(torch, "compile", lambda part: part)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    job = make_job(tmp_path, images=3, model=tmp_path / "model")
    for make in (compiled.batch, guide.batch, partial(guide.one_image, upto="fp16", rounds=1)):
        assert make(lambda _: load_pipeline(job.model, "model", "fp32"), job.task).seconds > 0
