"""When a worker begins to load."""

import threading
from pathlib import Path

import pytest

from batchgen.errors import StoppedError
from batchgen.events import EventLog, read_events
from batchgen.worker.loop import Worker
from batchgen.worker.spread import await_turn, start_delay_s
from tests.builders import plan_run
from tests.commands import worker_events
from tests.fake_engine import FakeEngine


@pytest.mark.parametrize(
    ("rank", "world", "spread_s", "delay_s"),
    [
        (3, 4, None, 0.0),
        (6, 7, None, 0.0),
        (0, 8, None, 0.0),
        (7, 8, None, 1.75),
        (128, 256, None, 30.0),
        (500, 1000, None, 30.0),
        (1, 2, 10.0, 5.0),
        (255, 256, 0.0, 0.0),
    ],
)
def test_starts_are_spread_by_rank(rank: int, world: int, spread_s: float | None, delay_s: float) -> None:
    assert start_delay_s((rank, world), spread_s, is_late=False) == delay_s


def test_a_late_worker_begins_at_once_unless_the_spread_is_set() -> None:
    assert start_delay_s((255, 256), None, is_late=True) == 0.0
    assert start_delay_s((1, 2), 10.0, is_late=True) == 5.0


def test_a_worker_that_is_told_to_stop_does_not_wait_for_its_turn(tmp_path: Path) -> None:
    stop, log = threading.Event(), EventLog(tmp_path / "w.jsonl")
    await_turn(0.0, log, stop)
    stop.set()
    with pytest.raises(StoppedError, match="before the model was loaded"):
        await_turn(3600.0, log, stop)
    assert [(one["event"], one["seconds"]) for one in read_events(tmp_path / "w.jsonl")] == [("spread", 3600.0)]


def test_a_worker_waits_before_it_loads_and_only_once(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(12)], launch__spread_s=0.4)
    assert Worker(plan, "w1", 1, 2, lambda plan: FakeEngine(), threading.Event()).work() == 0
    events = [event["event"] for event in worker_events(plan.run.root)]
    assert events[:3] == ["start", "spread", "loaded"] and events.count("spread") == 1 and events.count("shard") > 1
