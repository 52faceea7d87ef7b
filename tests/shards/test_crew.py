"""The workers of a run by their leases, logs and marks, as another machine sees them."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UserError
from batchgen.files import seal
from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards import crew as module
from batchgen.shards.crew import Member, read_crew
from batchgen.shards.leases import Watch
from tests.builders import gone_process, plan_run

AFAR: dict[str, Any] = {"host": "node1", "boot": "b", "pid": 7, "started": 1.0}
BEGUN = ("start", "loaded", "policy", "shard", "made")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_run(tmp_path, [f"fox {number}" for number in range(8)], output__batches_per_shard=1)


def log(plan: Plan, name: str, *events: str, ago_s: float = 0.0, **facts: Any) -> None:
    """The log of a worker on node1 that wrote its last event so long ago."""
    at = "2026-01-02T03:04:05+00:00"
    known = {"pid": 7, "rank": 0, "device": "H200", "shard": 1, "rows_resumed": 0, "batch": 0, "images": 1}
    lines = [json.dumps({"at": at, "event": event} | known | facts) for event in events]
    path = plan.run.worker_log(name)
    path.write_text("\n".join(lines) + "\n")
    _age(path, ago_s)


def lease(plan: Plan, name: str, shard: int = 1, ago_s: float = 0.0, **facts: Any) -> None:
    path = plan.run.lease(shard)
    path.write_text(json.dumps({"worker": name, "process": AFAR, "rows": 1, "step_s": 1.0} | facts))
    _age(path, ago_s)


def mark(plan: Plan, who: dict[str, Any] = AFAR) -> None:
    plan.run.new_mark().write_text(json.dumps({"process": who}))


def _age(path: Path, ago_s: float) -> None:
    os.utime(path, (time.time() - ago_s,) * 2)


def only(plan: Plan, watch: Watch | None = None) -> Member:
    [member] = read_crew(plan.run, watch or Watch(60.0)).members
    return member


def test_a_worker_with_a_live_lease_works(plan: Plan) -> None:
    log(plan, "node1-0-a", *BEGUN, element="17_2")
    lease(plan, "node1-0-a", ago_s=5)
    crew = read_crew(plan.run, Watch(60.0))
    [one] = crew.members
    assert (one.state, one.does, one.shard, one.element) == ("working", "working on shard 1", 1, "17_2")
    assert (one.host, one.device) == ("node1", "H200") and one.seen_s == pytest.approx(5, abs=2)
    assert crew.at_work == {"node1-0-a"} and crew.rows == {1: 1}


def test_rows_that_were_taken_over_count_before_the_first_step(plan: Plan) -> None:
    log(plan, "node1-0-a", "start", "loaded", "shard", rows_resumed=2)
    lease(plan, "node1-0-a", rows=0)
    assert read_crew(plan.run, Watch(60.0)).rows == {1: 2}


def test_one_look_finds_a_lease_that_was_not_renewed(plan: Plan) -> None:
    log(plan, "node1-0-a", *BEGUN)
    lease(plan, "node1-0-a", ago_s=300)
    crew = read_crew(plan.run, Watch(60.0))
    assert (crew.members[0].state, crew.at_work, crew.rows) == ("silent", frozenset(), {})
    assert crew.members[0].does.startswith("silent since 5m0")
    lease(plan, "node1-0-a", ago_s=300, step_s=40.0)
    assert only(plan).state == "working", "ten of its steps take longer"


def test_on_a_server_the_newest_file_says_what_time_it_is(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kind_of", lambda _: "nfs4")
    log(plan, "node1-0-a", *BEGUN, ago_s=500)
    lease(plan, "node1-0-a", ago_s=300)
    assert (only(plan).state, only(plan).seen_s) == ("working", 0), "this machine's clock may be ahead of the server's"
    log(plan, "node2-0-b", *BEGUN)
    lease(plan, "node2-0-b", shard=2)
    crew = read_crew(plan.run, Watch(60.0))
    assert [(one.worker, one.state) for one in crew.members] == [("node1-0-a", "silent"), ("node2-0-b", "working")]
    lease(plan, "node2-0-b", shard=2, ago_s=7200)
    lease(plan, "node1-0-a", ago_s=7200)
    for name in ("node1-0-a", "node2-0-b"):
        log(plan, name, *BEGUN, ago_s=7200)
    assert {one.state for one in read_crew(plan.run, Watch(60.0)).members} == {"silent"}, "no clocks differ by hours"


def test_a_watch_finds_a_worker_that_hangs(plan: Plan) -> None:
    watch = Watch(60.0)
    log(plan, "node1-0-a", *BEGUN)
    lease(plan, "node1-0-a", step_s=0.0)
    assert only(plan, watch).state == "working"
    watch.timeout_s = 0.0
    assert only(plan, watch).state == "silent"


def test_a_process_that_is_gone_is_gone_and_a_noted_crash_is_a_crash(plan: Plan) -> None:
    log(plan, "node1-0-a", *BEGUN)
    lease(plan, "node1-0-a", process=gone_process())
    assert only(plan).does == "gone without a word, on shard 1"
    plan.run.failures.mkdir()
    note = {"worker": "node1-0-a", "reason": "the worker was ended by SIGSEGV", "run_id": plan.run_id}
    plan.run.failure(1, "0" * 32).write_bytes(seal(note))
    assert (only(plan).state, only(plan).does) == ("crashed", "crashed: the worker was ended by SIGSEGV")


@pytest.mark.parametrize(
    ("events", "state", "does"),
    [
        (("start",), "loading", "loading the model"),
        (("start", "loaded"), "loading", "choosing a policy"),
        ((*BEGUN, "commit", "growth"), "waiting", "waiting"),
        ((*BEGUN, "end"), "ended", "ended"),
        ((*BEGUN, "drain"), "drained", "drained"),
        ((*BEGUN, "error"), "crashed", "crashed: out of luck"),
    ],
)
def test_without_a_lease_the_log_says_what_a_worker_does(
    plan: Plan, events: tuple[str, ...], state: str, does: str
) -> None:
    mark(plan)
    log(plan, "node1-0-a", *events, error="out of luck\nand more")
    assert (only(plan).state, only(plan).does, only(plan).seen_s) == (state, does, None)


def test_a_worker_without_lease_and_mark_is_gone_and_one_that_is_long_silent_is_silent(plan: Plan) -> None:
    log(plan, "node1-0-a", "start")
    assert only(plan).state == "gone"
    mark(plan)
    log(plan, "node1-0-a", "start", ago_s=9000)
    assert only(plan).does == "silent since 2h30m"


def test_the_one_that_was_started_in_anothers_place_counts(plan: Plan) -> None:
    mark(plan)
    log(plan, "node1-0-a", *BEGUN, "error", error="bad", ago_s=100)
    log(plan, "node1-0-b", *BEGUN)
    log(plan, "node1-1-c", *BEGUN, rank=1)
    log(plan, "node3-0-e", *BEGUN, host="node3", element="17_2", ago_s=50)
    log(plan, "node4-0-f", *BEGUN, host="node4", element="17_2")
    crew = read_crew(plan.run, Watch(60.0))
    replaced = {one.worker for one in crew.members if one.is_replaced}
    assert replaced == {"node1-0-a", "node3-0-e"}, "an element that was put back into the queue runs on any node"
    assert {one.worker for one in crew.members[-2:]} == replaced


def test_a_lease_without_a_log_is_a_worker(plan: Plan) -> None:
    lease(plan, "node1-0-a")
    assert (only(plan).host, only(plan).state, only(plan).shard) == ("node1", "working", 1)


def test_a_lease_that_is_no_plain_file_is_refused(plan: Plan) -> None:
    plan.run.lease(1).mkdir()
    with pytest.raises(UserError, match="cannot be a lease"):
        read_crew(plan.run, Watch(60.0))


def test_of_very_many_logs_those_of_workers_with_a_lease_are_read(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LOGS", 1)
    for name in "abcd":
        log(plan, f"node1-0-{name}", *BEGUN)
    lease(plan, "node1-0-c")
    crew = read_crew(plan.run, Watch(60.0))
    assert ([one.worker for one in crew.members], crew.unread) == (["node1-0-c"], 3)


def test_this_process_is_alive(plan: Plan) -> None:
    name = process.worker_name(0)
    mark(plan, process.identity())
    log(plan, name, "start", pid=os.getpid(), host=process.identity()["host"])
    assert only(plan).state == "loading"
