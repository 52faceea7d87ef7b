"""Attention backends, tried on the CPU."""

from unittest import mock

import pytest

pytest.importorskip("torch")

import torch

from batchgen.config.schema import ATTENTION
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.levers.attention import usable_attention
from tests.pipeline.placed import PROMPTS, changed, furthest, same
from tests.pipeline.test_engine import make


@pytest.mark.parametrize("attention", [one for one in ATTENTION if one not in ("xformers", "cudnn")])
def test_attention_that_runs_here_makes_the_same_pictures(folder, resident, attention):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    used, why = engine.prepare(changed(attention=attention))
    assert (used.attention, why is None) in ((attention, True), ("sdpa", False))
    assert furthest(make(engine, PROMPTS, used), resident) <= 2


@pytest.mark.parametrize("attention", ["cudnn", "xformers"])
def test_attention_that_does_not_run_here_says_why_and_sdpa_is_used(folder, resident, attention):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    used, why = engine.prepare(changed(attention=attention))
    assert used == changed(attention="sdpa")
    assert why
    assert "\n" not in why
    assert same(make(engine, PROMPTS, used), resident)


def test_attention_that_does_not_exist_in_the_model_is_not_needed(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert usable_attention("plain", engine._pipe.unet, torch.device("cpu"), torch.float32) == ("plain", None)


def test_a_full_device_says_nothing_about_an_attention_backend(folder, monkeypatch):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    refused = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", mock.Mock(side_effect=refused))
    with pytest.raises(torch.OutOfMemoryError):
        usable_attention("plain", engine._pipe.unet, torch.device("cpu"), torch.float32)
