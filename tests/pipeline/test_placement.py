"""Placements against the resident pipeline, for each family, on the CPU."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.models.families import FAMILIES
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.pipeline.placement import STAGES, Staged, components
from batchgen.placements import PLACEMENTS
from tests.pipeline.placed import changed, images, same


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_where_the_weights_wait_changes_no_byte(folder, resident, placement):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    assert same(images(engine, placement=placement), resident)
    assert same(images(engine, placement=placement), resident), "a second batch"


def test_a_placement_can_follow_any_other(folder, resident):
    engine = DiffusersEngine(ModelFiles(folder), "model", "fp32")
    for placement in ("sequential_offload", "resident", "group_offload_leaf", "model_offload", "group_offload_block"):
        assert same(images(engine, placement=placement), resident), placement


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
    family = FAMILIES[type(pipe).__name__]
    return [weight.data_ptr() for module in components(pipe, family, stage) for weight in module.parameters()]


def test_a_staged_module_keeps_what_the_host_holds():
    module = torch.nn.Linear(3, 2)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    staged = Staged(module, torch.device("cpu"))
    staged.enter()
    with torch.no_grad():
        module.weight.fill_(7.0)  # what happens on the device stays there
    staged.leave()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in expected.items())
