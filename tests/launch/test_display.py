"""What the front door shows while workers work: it never raises, whatever there is to read and wherever it writes."""

import errno
import io
import json
import time
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.launch import display
from batchgen.launch.display import Display
from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards.progress import read_progress
from batchgen.shards.starting import Starting
from tests.builders import leave_attempt, plan_run


class Terminal(io.StringIO):
    """A stderr that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["lines", "bar"])
def stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = request.param()
    assert isinstance(stream, io.StringIO)
    monkeypatch.setattr(display, "_BAR_EVERY_S", 0.0)
    monkeypatch.setattr(display, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(display, "_FIRST_LINE_S", 0.0)
    return stream


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_run(tmp_path, [f"prompt {place}" for place in range(8)])
    leave_attempt(plan, 1)
    plan.run.lease(0).write_text(json.dumps({"worker": "w", "process": process.identity(), "rows": 3}))
    return plan


def look(plan: Plan, stderr: io.StringIO) -> None:
    with redirect_stderr(stderr):
        shown = Display(plan)
        shown.start(2)
        for _ in range(3):
            shown.tick()
        shown.close()


def test_progress_is_shown(plan: Plan, stderr: io.StringIO) -> None:
    look(plan, stderr)
    assert "3/8" in stderr.getvalue()


def test_a_job_in_a_queue_adds_a_line_now_and_then(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_FIRST_LINE_S", 0.0)
    monkeypatch.setattr(display, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(display, "_PAUSE", 0.0)  # however long a look takes here
    said = {}
    for job in ("", "41"):
        stream = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setenv("SLURM_JOB_ID", job) if job else patch.delenv("SLURM_JOB_ID", raising=False)
            look(plan, stream)
        said[job] = stream.getvalue().count(" shards")
    assert said == {"": 3, "41": 1}


def test_the_bar_and_the_lines_say_the_same_rate_and_time_left(
    plan: Plan, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(read_progress(plan), images_per_s=0.5, eta_s=75.0)
    monkeypatch.setattr(display, "read_progress", lambda *_: known)
    look(plan, stderr)
    assert "0.50 images/s, ETA 1m15s" in stderr.getvalue()


def test_the_bar_says_who_is_still_loading(plan: Plan, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = (Starting("w", "loading the model", time.time() - 5),)
    known = replace(read_progress(plan), starting=waiting)
    monkeypatch.setattr(display, "read_progress", lambda *_: known)
    look(plan, stderr)
    assert "1 worker is loading the model, for " in stderr.getvalue()


def test_the_bar_says_what_is_waited_for_until_a_worker_does(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_BAR_EVERY_S", 0.0)
    monkeypatch.setattr(display, "_PAUSE", 0.0)
    stream = Terminal()
    known = replace(read_progress(plan), workers=0)

    def tick(**facts: Any) -> str:
        monkeypatch.setattr(display, "read_progress", lambda *_: replace(known, **facts))
        stream.truncate(0)
        shown.tick()
        return stream.getvalue()

    with redirect_stderr(stream):
        shown = Display(plan)
        shown.start(1)
        assert "loading the model" in tick(), "its process has not said a word yet"
        assert "measuring memory" in tick(starting=(Starting("w", "measuring memory", time.time()),))
        assert "loading" not in tick() and "measuring" not in tick()
        shown.close()


def test_without_a_terminal_the_first_line_says_what_is_waited_for_and_the_last_how_far_it_came(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    with redirect_stderr(stream):
        shown = Display(plan)
        shown.start(2)
        shown.tick()  # too early for a line
        assert stream.getvalue() == (
            "batchgen: 2 workers load the model; 3 of 8 images are there, and progress follows\n"
        )
        shown.close()
        assert len(stream.getvalue().splitlines()) == 1, "nothing was made, so there is nothing to say"
        shown = Display(plan)
        shown.start(1)
        plan.run.lease(0).write_text(json.dumps({"worker": "w", "process": process.identity(), "rows": 4}))
        shown.close()
    *_, before, last = stream.getvalue().splitlines()
    assert before == "batchgen: 1 worker loads the model; 3 of 8 images are there, and progress follows"
    assert last.startswith("batchgen: 4/8 images, 0/")


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("function", ["read_bytes", "glob", "iterdir", "open"])
def test_a_file_system_that_fails_is_told_once_at_most(
    plan: Plan, stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(code, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, function, fails)
        look(plan, stderr)
    assert stderr.getvalue().count("cannot be shown for now") <= 1
    look(plan, stderr)
    assert "3/8" in stderr.getvalue()


def lease_is(content: bytes) -> Any:
    return lambda plan: plan.run.lease(0).write_bytes(content)


def pipe(plan: Plan) -> None:
    plan.run.lease(0).unlink()
    plan.run.lease(0).symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "damage",
    [
        lease_is(b'{"worker": ["w"], "rows": "many"}'),
        lease_is(b'{"work'),
        lambda plan: (plan.run.leases / "0x").write_bytes(b""),
        lambda plan: (plan.run.memory_logs / "000000.jsonl").mkdir(),
        pipe,
    ],
)
def test_torn_leases_and_odd_files_are_passed_over(plan: Plan, stderr: io.StringIO, damage: Any) -> None:
    damage(plan)
    look(plan, stderr)


def test_a_worker_that_hangs_is_not_counted_once_it_was_silent_for_too_long(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Display(plan)
    assert read_progress(plan, shown._watch).workers == 1
    shown._watch.timeout_s = 0.0
    assert read_progress(plan, shown._watch).workers == 0
