"""Paces: from units as they were made to seconds of batches that are still to come."""

from dataclasses import replace

import pytest

from batchgen.evening.pace import Observed, Pace, Paces, observe, pace_of
from batchgen.evening.work import Job
from batchgen.memory.costs import Task, batch_s
from tests.builders import POLICY
from tests.memory.cards import sd15_512

POLICY_16 = replace(POLICY, micro_batch=16)
PASS_S, REST_S = 0.003, 0.05  # of a row, of an image


def made(job: Job) -> Observed:
    """A unit on a device where a row takes PASS_S."""
    denoise_s = sum(rows * passes * PASS_S for rows, passes in job.calls(16))
    return Observed(job, POLICY_16, denoise_s, denoise_s + job.rows * REST_S, job.rows * 0.01)


def test_what_was_observed_foretells_other_steps_rows_and_guidance() -> None:
    pace = observe([made(Job(64, 64, 20, True, 32)), made(Job(64, 64, 20, True, 40))], 1.0)
    assert pace is not None and [rows for rows, _ in pace.pass_s] == [16, 32]
    for job in (Job(64, 64, 20, True, 32), Job(64, 64, 50, True, 16), Job(64, 64, 20, False, 16)):
        assert pace.job_s(job, POLICY_16) == pytest.approx(made(job).seconds)
    assert pace.write_s == pytest.approx(0.01) and observe([], 1.0) is None


def test_what_workers_measured_while_they_shared_a_device_is_faster_for_one() -> None:
    shared = observe([made(Job(64, 64, 20, True, 32))], 2.0)
    assert shared is not None
    job = Job(64, 64, 20, True, 32)
    assert shared.job_s(job, POLICY_16) == pytest.approx(made(job).seconds / 2)


def test_a_size_that_was_not_measured_goes_by_the_nearest_one_in_proportion_to_its_pixels() -> None:
    known = Paces({"64x64 resident": Pace(((2.0, 1.0),), 0.5), "256x256 resident": Pace(((2.0, 9.0),), 1.0)})
    assert known.has(64, 64, "resident") and not known.has(96, 64, "resident")
    assert known.of(96, 64, "resident") == Pace(((2.0, 1.5),), 0.75)
    assert known.of(64, 64, "model_offload") is None, "another placement takes other time"
    assert known.of(1024, 1024, "resident") is None, "too far"


def test_newer_figures_take_the_place_of_older_ones() -> None:
    old = Paces({"a": Pace((), 1.0), "b": Pace((), 2.0)}, 9.0, 0.1, 1.0, {"x": (10.0, 3)})
    new = Paces({"b": Pace((), 3.0)}, None, 0.2, 2.0, {"y": (20.0, 4)})
    both = old.with_more(new)
    assert {name: pace.rest_s for name, pace in both.sizes.items()} == {"a": 1.0, "b": 3.0}
    assert (both.start_s, both.shard_s, both.end_s) == (9.0, 0.2, 2.0) and set(both.image_bytes) == {"x", "y"}


@pytest.mark.parametrize("placement", ["resident", "model_offload", "weight_streaming"])
@pytest.mark.parametrize("guided", [True, False])
def test_figures_of_the_memory_probe_give_the_pace_that_the_choice_reckons_with(placement: str, guided: bool) -> None:
    figures, policy = sd15_512(), replace(POLICY_16, placement=placement, dtype="fp16", decode_chunk=4)
    task = Task(512, 512, 32, 20, guided)
    pace = pace_of(figures, policy, task)
    job = Job(512, 512, 20, guided, 32)
    assert pace.job_s(job, policy) == pytest.approx(batch_s(figures, policy, task), rel=0.02)
