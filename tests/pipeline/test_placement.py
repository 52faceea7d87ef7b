"""Placements and how the UNet is called, against the resident pipeline, for each family, on the CPU."""

import gc
import weakref
from unittest import mock

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from batchgen.config.schema import ATTENTION
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.guidance import in_two_passes
from batchgen.pipeline.levers.attention import usable_attention
from batchgen.pipeline.placement import STAGES, Staged, components
from batchgen.policy import PLACEMENTS
from tests.pipeline.small_models import KINDS, save
from tests.pipeline.test_engine import POLICY, make, prompt

PROMPTS = [prompt(place) for place in range(3)]


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def resident(folder):
    return images(DiffusersEngine(ModelFiles(folder), "model", "fp32"))


def images(engine, **changes):
    """{key: pixels} of the prompts under POLICY with these changes."""
    policy, why = engine.prepare(changed(**changes))
    assert why is None
    return make(engine, PROMPTS, policy)


def changed(**changes):
    from dataclasses import replace

    return replace(POLICY, **changes)


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def furthest(one, other):
    return max(int(np.abs(one[key].astype(int) - other[key].astype(int)).max()) for key in one)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_where_the_weights_wait_changes_no_byte(folder, resident, placement):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert same(images(engine, placement=placement), resident)
    assert same(images(engine, placement=placement), resident), "a second batch"


def test_a_placement_can_follow_any_other(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    for placement in ("sequential_offload", "resident", "group_offload_leaf", "model_offload", "group_offload_block"):
        assert same(images(engine, placement=placement), resident), placement


def test_a_pipeline_that_is_replaced_is_gone(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    images(engine, placement="sequential_offload")
    gone = weakref.ref(engine._pipe.unet)
    images(engine, placement="resident")
    gc.collect()
    assert gone() is None


def test_staged_weights_are_on_the_device_while_their_stage_runs(folder):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    engine.prepare(changed(placement="model_offload"))
    pipe = engine._pipe
    host = {stage: pointers(pipe, stage) for stage in STAGES}
    for stage in STAGES:
        engine._model.enter(stage)
        for other in STAGES:
            moved = [now != then for now, then in zip(pointers(pipe, other), host[other], strict=True)]
            assert all(moved) if other == stage else not any(moved)


def pointers(pipe, stage):
    return [weight.data_ptr() for module in components(pipe, stage) for weight in module.parameters()]


def test_a_staged_module_keeps_what_the_host_holds():
    module = torch.nn.Linear(3, 2)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    staged = Staged(module, torch.device("cpu"))
    staged.enter()
    with torch.no_grad():
        module.weight.fill_(7.0)  # what happens on the device stays there
    staged.leave()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize("change", [{"guidance_split": True}, {"channels_last": True}, {"traced": True}])
def test_how_the_unet_is_called_changes_low_bits_at_most(folder, resident, change):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert furthest(images(engine, **change), resident) <= 2
    assert same(images(engine), resident), "and can be undone"


def test_all_of_them_together(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    made = images(engine, placement="model_offload", guidance_split=True, channels_last=True, traced=True)
    assert furthest(made, resident) <= 2


def test_guidance_is_split_under_offload_too(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert furthest(images(engine, placement="sequential_offload", guidance_split=True), resident) <= 2
    assert furthest(images(engine, placement="group_offload_block", guidance_split=True), resident) <= 2


def test_two_passes_see_half_of_the_rows_each():
    seen = []

    def forward(sample, time, texts=None, added=None):
        seen.append((len(sample), float(time), len(texts), len(added["ids"])))
        return (sample * 2,)

    sample = torch.arange(8.0).view(4, 2)
    result = in_two_passes(forward)(sample, torch.tensor(5.0), texts=torch.zeros(4, 3), added={"ids": torch.zeros(4)})
    assert torch.equal(result[0], sample * 2)
    assert seen == [(2, 5.0, 2, 2)] * 2


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
    assert usable_attention("plain", engine._pipe, torch.device("cpu"), torch.float32) == ("plain", None)


def test_a_full_device_says_nothing_about_an_attention_backend(folder, monkeypatch):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    refused = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", mock.Mock(side_effect=refused))
    with pytest.raises(torch.OutOfMemoryError):
        usable_attention("plain", engine._pipe, torch.device("cpu"), torch.float32)
