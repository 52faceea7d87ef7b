"""Whether compiling pays, by measured seconds."""

from dataclasses import replace

import pytest

from batchgen.memory.costs import Task
from batchgen.speed.worth import Measured, Timed, is_worth_trying, pays
from tests.builders import POLICY

TASK = Task(512, 512, 32, 50, guided=True)
WHOLE = replace(POLICY, micro_batch=32, decode_chunk=8)
# SD 1.5 on an H100, tests/bench/results/passes.rows.jsonl
H100 = Measured(Timed(0.187, 0.122), Timed(0.137, 0.068), compile_s=59.0)


def test_a_batch_counts_micro_batches_steps_and_chunks() -> None:
    assert Timed(0.1, 0.2).batch_s(TASK, WHOLE) == pytest.approx(50 * 0.1 + 4 * 0.2)
    halves = replace(WHOLE, micro_batch=16, decode_chunk=5)
    assert Timed(0.1, 0.2).batch_s(TASK, halves) == pytest.approx(2 * 50 * 0.1 + 7 * 0.2)


@pytest.mark.parametrize(
    ("batches", "start_s", "does"), [(20, 59.0, False), (30, 59.0, True), (4, 10.0, True), (3, 10.0, False)]
)
def test_what_it_saves_must_be_more_than_what_it_costs(batches: float, start_s: float, does: bool) -> None:
    assert pays(H100, TASK, WHOLE, batches, start_s) is does


def test_graphs_are_best_where_they_gain_clearly() -> None:
    assert H100.best(TASK, WHOLE) == ("whole", H100.compiled)
    little, much = (replace(H100, graphed=Timed(step_s, 0.068)) for step_s in (0.136, 0.12))
    assert little.best(TASK, WHOLE) == ("whole", H100.compiled)
    assert much.best(TASK, WHOLE) == ("graphs", much.graphed)
    assert pays(much, TASK, WHOLE, 20, 59.0), "and it is their gain that counts"


def test_a_gain_that_is_small_is_not_worth_other_bits() -> None:
    little = replace(H100, compiled=Timed(0.184, 0.122))
    assert not pays(little, TASK, WHOLE, 1e6, 0.0)
    assert not pays(replace(H100, compiled=Timed(0.3, 0.122)), TASK, WHOLE, 1e6, 0.0)


def test_code_that_is_on_the_disk_costs_less() -> None:
    assert H100.start_s(is_on_disk=False) == 59.0
    assert H100.start_s(is_on_disk=True) < 30.0
    assert replace(H100, again_s=9.0).start_s(is_on_disk=True) == 9.0
    assert replace(H100, again_s=9.0).start_s(is_on_disk=False) == 59.0


def test_short_jobs_do_not_even_try() -> None:
    assert not is_worth_trying(batch_s=10.0, batches=20, workers=1)
    assert is_worth_trying(batch_s=10.0, batches=100, workers=1)
    assert not is_worth_trying(batch_s=10.0, batches=100, workers=8)
