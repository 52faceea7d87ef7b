"""What crashes mean: which rows are tried how, which are given up, and when it is the device."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BatchgenError
from batchgen.shards.failures import (
    Crash,
    RowsAt,
    Trial,
    is_device_at_fault,
    may_be_the_rows,
    read_crashes,
    record,
    strike,
    suspects_last,
    trials,
)
from batchgen.types import Batch, Shard
from tests.builders import make_prompt, plan_run, start_attempt

SHARD = Shard(0, tuple(Batch(place, tuple(make_prompt(f"{place}-{row}") for row in range(8))) for place in range(2)))
WHOLE = [Trial(range(8))]


def crash(first_row: int, stop_row: int, gpu: str = "a", gpus: int = 1, shard: int = 0) -> Crash:
    return Crash(shard, (first_row, stop_row), "SIGSEGV", gpu, gpus, "now", Path())


def pieces(*crashes: Crash, batch: int = 0) -> list[tuple[int, int, bool]]:
    """First row, stop row and whether it is given up, of each piece of a batch."""
    return [(one.rows.start, one.rows.stop, one.reason is not None) for one in trials(SHARD, crashes)[batch]]


def test_one_crash_changes_nothing_and_two_halve_the_batch_that_they_met() -> None:
    assert trials(SHARD, []) == trials(SHARD, [crash(0, 8)]) == [WHOLE, WHOLE]
    assert trials(SHARD, [crash(8, 16)] * 2) == [WHOLE, [Trial(range(4)), Trial(range(4, 8))]]
    # One while a unit was written and the next denoised: it may have been either.
    assert pieces(crash(4, 12), crash(4, 12), batch=0) == pieces(crash(4, 12), crash(4, 12), batch=1)


def test_where_two_gpus_are_at_work_both_must_have_crashed() -> None:
    assert pieces(crash(0, 8, "a", 2), crash(0, 8, "a", 2)) == [(0, 8, False)]
    assert pieces(crash(0, 8, "a", 2), crash(0, 8, "b", 2)) == [(0, 4, False), (4, 8, False)]
    assert pieces(crash(0, 8, "a", 2), crash(0, 8, "a", 1)) == [(0, 4, False), (4, 8, False)]  # the other has left


def test_a_half_that_crashes_is_halved_at_once_and_a_row_is_given_up_after_two_crashes_of_its_own() -> None:
    known = [crash(0, 8), crash(0, 8), crash(4, 8), crash(4, 6)]
    assert pieces(*known) == [(0, 4, False), (4, 5, False), (5, 6, False), (6, 8, False)]
    assert pieces(*known, crash(5, 6))[2] == (5, 6, False)
    assert pieces(*known, crash(5, 6), crash(5, 6))[2] == (5, 6, True)


def test_what_crashed_without_a_row_speaks_against_the_device() -> None:
    assert trials(SHARD, [crash(8, 8)] * 3) == [WHOLE, WHOLE]
    assert is_device_at_fault([crash(8, 8)])
    assert not is_device_at_fault([crash(0, 8)] * 9 + [crash(0, 8, shard=1)])
    assert is_device_at_fault([crash(0, 8, shard=shard) for shard in (4, 0, 7)])


def test_shards_that_crashed_come_last_and_the_most_tried_of_them_first() -> None:
    known = {0: [crash(0, 8)], 2: [crash(0, 8)] * 2}
    assert suspects_last(known, [2, 0, 3, 1]) == [3, 1, 2, 0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (IndexError("index out of range"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (OSError("encoder error -2 when writing image file"), True),
        (OSError(28, "No space left on device"), False),
        (MemoryError(), False),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (BatchgenError("the model gave 3 images for 4 prompts"), False),
    ],
)
def test_memory_disk_and_lost_devices_are_not_the_rows_doing(error: Exception, expected: bool) -> None:
    assert may_be_the_rows(error) is expected


@pytest.fixture
def at(tmp_path: Path) -> Any:
    """A run, and a note of its first attempt's rows, as the worker 'w' leaves it when it dies."""
    plan = plan_run(tmp_path, ["one", "two"])
    attempt = start_attempt(plan)
    note = RowsAt(attempt.files.at, attempt.header)
    note.note(0, 2)
    return plan, attempt, note


@pytest.mark.parametrize("code", [-9, -15, -2, 0, 1, 2, 75, 76, 137])
def test_kills_and_other_ends_never_count(at: Any, code: int) -> None:
    plan, attempt, _ = at
    assert record(plan.run, plan.run_id, "w", code, "gpu", 1) is None
    assert read_crashes(plan.run, plan.run_id) == {} and not attempt.files.at.exists()


def test_a_crash_is_recorded_once_and_only_for_its_own_run_until_it_is_struck(at: Any) -> None:
    plan, attempt, note = at
    assert record(plan.run, plan.run_id, "another", -11, "gpu", 1) is None
    note.note(1, 2)
    note.note_error(IndexError("index out of range"))
    made = record(plan.run, plan.run_id, "w", 1, "gpu", 1)
    assert made is not None and made.rows == (1, 2) and made.reason == "IndexError: index out of range"
    assert record(plan.run, plan.run_id, "w", 1, "gpu", 1) is None
    assert read_crashes(plan.run, plan.run_id) == {0: [made]}
    assert read_crashes(plan.run, "another run") == {}
    strike([made])
    assert read_crashes(plan.run, plan.run_id) == {}
    made.path.write_bytes(b'{"shard":0')  # torn
    assert read_crashes(plan.run, plan.run_id) == {}
    attempt.discard()
    assert not list(plan.run.work.iterdir())


def test_an_error_without_words_is_named(at: Any) -> None:
    plan, _, note = at
    note.note_error(AssertionError())
    made = record(plan.run, plan.run_id, "w", 1, "gpu", 1)
    assert made is not None and made.reason == "AssertionError: without a message"
