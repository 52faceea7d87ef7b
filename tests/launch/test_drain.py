"""Work that ends early: at a time limit, at an hour, or because somebody asked; the same command goes on."""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from batchgen.launch import drain as drain_module
from batchgen.launch.deadline import Deadline
from batchgen.launch.drain import Drain, asked
from batchgen.machine.process import StopEvent
from batchgen.paths import RunDir
from tests.commands import (
    FAKE,
    SMALL,
    WORKER,
    front,
    planned,
    run,
    samples,
    verify,
    wait_for,
    worker_events,
    write_prompts,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 40)


def test_a_time_limit_ends_the_run_in_time_and_the_same_command_goes_on(tmp_path, prompts):
    planned(tmp_path / "run", prompts, "launch.workers=2")
    slow = {"FAKE_STEP_S": "3"}
    ended = front(tmp_path / "run", prompts, "launch.workers=2", "launch.time_limit=12s", "launch.warn_s=1", **slow)
    assert ended.returncode == 75, ended.stderr
    assert "launch.time_limit=12s is over in 1s: finishing the units under way\n" in ended.stderr
    assert ended.stderr.endswith("interrupted; what is finished is kept, and the same command goes on\n")
    assert not list((tmp_path / "run" / "leases").iterdir())
    assert {event["event"] for event in worker_events(tmp_path / "run")} >= {"made", "drain"}
    assert front(tmp_path / "run", prompts, "launch.workers=2").returncode == 0
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout
    front(tmp_path / "whole", prompts)
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")


def test_an_hour_to_stop_at_holds_for_all_workers_until_the_same_command_sets_the_next(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    soon = (datetime.now() + timedelta(seconds=10)).strftime("%H:%M:%S")
    ended = front(tmp_path / "run", prompts, f"launch.stop_at={soon}", FAKE_STEP_S="3")
    assert ended.returncode == 75, ended.stderr
    assert f"T{soon}" in ended.stderr and "has come: finishing the units under way" in ended.stderr
    late = run(WORKER, tmp_path / "run", 0, 1)
    assert late.returncode == 75, "the hour of this night has come, also for who begins later"
    assert "has come; the same command as before starts workers again" in late.stderr
    assert front(tmp_path / "run", prompts, f"launch.stop_at={soon}").returncode == 0, "the next day"


def test_a_sweep_has_one_time_for_all_its_runs(tmp_path, prompts):
    planned(tmp_path / "checked", prompts)  # the model is, which takes a while
    arguments = (*SMALL, "-m", f"run_dir={tmp_path}/run", f"job.prompts={prompts}", "job.seed=1,2")
    ended = run(FAKE, *arguments, "launch.time_limit=25s", "launch.warn_s=1", FAKE_STEP_S="6")
    assert ended.returncode == 75, ended.stderr
    assert ended.stderr.count("launch.time_limit=25s is over in 1s: finishing the units under way") == 1
    assert ended.stderr.count("launch.time_limit=25s is over in 1s: nothing is begun here") == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("launch.stop_at=7", "launch.stop_at=7 is not a time: write it as 07:00"),
        ("launch.stop_at=25:00", "launch.stop_at=25:00 is not a time"),
        ("launch.time_limit=90", "launch.time_limit=90 is not a duration: write it as 7h30m, 90m or 07:30:00"),
        ("launch.time_limit=0s", "launch.time_limit=0s is not a duration"),
    ],
)
def test_what_is_no_time_is_refused_before_anything_is_planned(tmp_path, prompts, setting, words):
    refused = front(tmp_path / "run", prompts, setting)
    assert refused.returncode == 2 and words in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_note_of_cancel_reaches_a_worker_that_was_started_by_hand(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    (tmp_path / "run" / "stop.json").write_text(json.dumps({"by": "ann on node1", "at": ""}))
    ended = run(WORKER, tmp_path / "run", 0, 1, FAKE_STEP_S="0.5")
    assert ended.returncode == 75
    assert ended.stderr == (
        "worker 0: ann on node1 asked all workers to end; the same command as before starts workers again\n"
    )


def test_it_is_asked_for_once_a_deadline_has_come_or_the_parent_is_gone(tmp_path: Path) -> None:
    for ends, parent, why in (
        (Deadline(time.time() - 1, "it is late", True), None, "it is late"),
        (Deadline(time.time() + 60, "it is late", True), None, None),
        (None, 2**22 + 1, "what started the ranks is gone"),
        (None, None, None),
    ):
        stop = StopEvent()
        drain = Drain(RunDir(tmp_path), stop, ends, parent)
        drain.look()
        assert (stop.why, stop.is_set(), drain.by_limit) == (why, why is not None, why == "it is late")


def test_a_signal_that_came_first_is_the_reason(tmp_path: Path) -> None:
    stop = StopEvent()
    stop.by = "SIGTERM"
    stop.set()
    drain = Drain(RunDir(tmp_path), stop, Deadline(0.0, "it is late", True))
    drain.look()
    assert (stop.why, drain.by_limit) == (None, False)


@pytest.mark.parametrize("content", ["", "null", "{}", "[1]"])
def test_a_note_that_cannot_be_read_counts_too(tmp_path: Path, content: str) -> None:
    run_dir = RunDir(tmp_path)
    assert asked(run_dir) is None
    run_dir.stop.write_text(content)
    assert asked(run_dir) == f"{run_dir.stop} asks all workers to end"


def test_a_note_that_comes_later_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_LOOK_ALONE_EVERY_S", 0.1)
    monkeypatch.setattr(drain_module, "_WAKE_S", 0.1)
    stop = StopEvent()
    Drain(RunDir(tmp_path), stop, None).look_on()
    RunDir(tmp_path).stop.write_text('{"by": "ann"}')
    wait_for(stop.is_set, timeout_s=10)
    assert stop.why == "ann asked all workers to end"
