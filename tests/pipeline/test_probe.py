"""The probe with real pipelines, on the CPU: what it measures is there, and the engine goes on as before."""

import pytest

from batchgen.memory.estimate import estimate

pytest.importorskip("torch")

from dataclasses import replace
from typing import Any

from batchgen.memory.costs import Task
from batchgen.memory.probe import PROBED_UNDER, probe
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from tests.pipeline.small_models import KINDS, save
from tests.pipeline.test_engine import POLICY, make, prompt

TASK = Task(64, 64, 2, 4, guided=True)


class Gauge:
    """A device whose peak is a byte above what it began with."""

    def free_bytes(self):
        return 1 << 40

    def begin(self):
        return 1000

    def peak_bytes(self):
        return 2000

    def copied_bytes_per_s(self):
        return 1e9


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_is_measured_and_images_stay_the_same(kind, tmp_path):
    engine = DiffusersEngine(ModelFiles(save(kind, tmp_path / kind)), "model", "fp32")
    guess = estimate(ModelFiles(tmp_path / kind), "fp32", 64, 64)
    policy, _ = engine.prepare(POLICY)
    before = make(engine, [prompt(0)], policy)
    gauge: Any = Gauge()
    for placement in PROBED_UNDER:
        figures = probe(engine, gauge, guess, TASK, POLICY, placement, 10_000)
        assert figures.measured
        assert [rows for rows, _ in figures.pass_s] == [1, 2, 4]
        ((pixels, calls),) = figures.decode_s
        assert (pixels, [count for count, _ in calls]) == (4096, [1, 2])
        assert all(seconds > 0 for _, seconds in figures.pass_s + calls)
        assert (set(dict(figures.pass_bytes).values()), figures.weights) == ({1000}, guess.weights)
    policy, _ = engine.prepare(replace(POLICY))
    after = make(engine, [prompt(0)], policy)
    assert all((before[key] == after[key]).all() for key in before)


def test_a_pass_is_timed_for_each_call_of_the_unet_and_only_then(tmp_path):
    engine = DiffusersEngine(ModelFiles(save("sd15", tmp_path / "sd15")), "model", "fp32")
    policy, _ = engine.prepare(POLICY)
    with engine.passes() as watches:
        make(engine, [prompt(0)], policy)
    count = len(watches)
    assert count >= prompt(0).steps
    make(engine, [prompt(0)], policy)
    assert len(watches) == count
