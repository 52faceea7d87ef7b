"""What workers do before their first image, by their logs and by which processes are alive."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from batchgen.events import EventLog
from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards.crew import read_crew
from batchgen.shards.leases import Watch
from batchgen.shards.starting import Starting, starting, starting_line
from tests.builders import gone_process, plan_run


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run by whose plan this process works."""
    plan = plan_run(tmp_path)
    plan.run.new_mark().write_text(json.dumps({"process": process.identity()}))
    return plan


def log(plan: Plan, *events: str, pid: int | None = None) -> Path:
    path = plan.run.worker_log(process.worker_name(0))
    worker = EventLog(path)
    worker.add("start", rank=0, world=1, pid=pid or os.getpid())
    for event in events:
        worker.add(event)
    return path


def found(plan: Plan) -> list[Starting]:
    return list(starting(read_crew(plan.run, Watch(60.0))))


@pytest.mark.parametrize(
    ("events", "does"),
    [
        ((), "loading the model"),
        (("spread",), "waiting for their turn to load the model"),
        (("spread", "staging"), "copying the model"),
        (("staging", "staged"), "loading the model"),
        (("not_staged",), "loading the model"),
        (("load_failed",), "trying again to load the model"),
        (("loaded",), "choosing a policy"),
        (("loaded", "probe_failed"), "measuring memory"),
        (("loaded", "probed", "chosen", "policy"), "beginning"),
        (("loaded", "policy", "shard"), None),
        (("loaded", "policy", "shard", "commit", "policy"), None),
        (("end",), None),
    ],
)
def test_the_last_event_says_what_a_worker_does(plan: Plan, events: tuple[str, ...], does: str | None) -> None:
    path = log(plan, *events)
    assert [(one.worker, one.does) for one in found(plan)] == ([(path.stem, does)] if does else [])


def test_workers_that_are_gone_are_not_starting(plan: Plan) -> None:
    log(plan, pid=1)  # a process that is not at work here
    assert found(plan) == []
    log(plan)
    for mark in plan.run.marks():
        mark.write_text(json.dumps({"process": gone_process()}))
    assert found(plan) == []


@pytest.mark.parametrize("content", [b"", b"\n", b'{"event": 3}\n', b'["start"]\n{"event"', b"\xff\x00"])
def test_torn_logs_are_passed_over(plan: Plan, content: bytes) -> None:
    plan.run.worker_log(process.worker_name(1)).write_bytes(content)
    assert found(plan) == []


def test_the_line_counts_workers_and_says_since_when() -> None:
    workers: list[Any] = [
        Starting("a", "loading the model", 100.0),
        Starting("b", "loading the model", 88.0),
        Starting("c", "measuring memory", 97.0),
    ]
    said = starting_line(workers, 100.0)
    assert said == "2 workers are loading the model, for 12s; 1 worker is measuring memory, for 3s"
    assert starting_line([], 100.0) is None
