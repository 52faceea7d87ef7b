"""Leases: a live one is respected, one of somebody gone is taken at once, a silent one after a while."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen import leases, process
from batchgen.leases import Lease, Watch, read_lease
from batchgen.paths import RunDir
from tests.builders import gone_process

ELSEWHERE = process.identity() | {"host": "another-machine"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.make()
    return run


class Clock:
    """A monotonic clock that goes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    yield clock


def write_lease(run: RunDir, holder: dict[str, Any], beat: int = 0) -> Path:
    path = run.lease(0)
    path.write_text(json.dumps({"worker": "w", "process": holder, "beat": beat}))
    return path


def ended_process() -> dict[str, Any]:
    code = "import json; from batchgen import process; print(json.dumps(process.identity()))"
    who = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert isinstance(who, dict)
    return who


def test_a_lease_is_for_one_and_free_again_once_released(run: RunDir) -> None:
    lease = Lease.take(run, 0, "first", Watch(60))
    assert lease is not None
    assert Lease.take(run, 0, "second", Watch(60)) is None
    other_shard = Lease.take(run, 1, "second", Watch(60))
    assert other_shard is not None
    other_shard.release()
    lease.release()
    assert list(run.leases.iterdir()) == []
    again = Lease.take(run, 0, "second", Watch(60))
    assert again is not None
    again.release()


@pytest.mark.parametrize(
    "holder", [pytest.param(ended_process, id="ended"), pytest.param(gone_process, id="pid used again")]
)
def test_the_lease_of_a_dead_process_is_taken_at_once(run: RunDir, holder: Any) -> None:
    path = write_lease(run, holder())
    lease = Lease.take(run, 0, "next", Watch(3600))
    assert lease is not None
    assert read_lease(path.read_bytes())["worker"] == "next"
    lease.release()


def test_the_lease_of_an_earlier_boot_is_stale(run: RunDir) -> None:
    path = write_lease(run, process.identity() | {"boot": "earlier"})
    assert not Watch(3600).is_live(path)


def test_a_lease_of_another_machine_is_stale_once_it_was_silent_for_too_long(run: RunDir, clock: Clock) -> None:
    watch = Watch(timeout_s=60)
    path = write_lease(run, ELSEWHERE)
    for waited_s, live in ((0, True), (59, True), (2, False)):
        clock.now_s += waited_s
        assert watch.is_live(path) == live
    assert Lease.take(run, 0, "late", Watch(60)) is None  # a reader who just came must watch it first


def test_each_beat_starts_the_wait_anew(run: RunDir, clock: Clock) -> None:
    watch = Watch(timeout_s=60)
    for beat in range(5):
        path = write_lease(run, ELSEWHERE, beat)
        assert watch.is_live(path)
        clock.now_s += 59
    assert watch.is_live(path)
    clock.now_s += 2
    assert not watch.is_live(path)


def test_a_lease_that_is_given_back_and_taken_again_is_a_new_one(run: RunDir, clock: Clock) -> None:
    watch = Watch(timeout_s=60)
    path = write_lease(run, ELSEWHERE)
    assert watch.is_live(path)
    path.unlink()
    assert not watch.is_live(path)
    clock.now_s += 100
    write_lease(run, ELSEWHERE)
    assert watch.is_live(path)


def test_a_lease_beats_and_tells_how_far_its_worker_is(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    lease = Lease.take(run, 0, "w", Watch(60))
    assert lease is not None
    lease.note_progress(5)
    path = run.lease(0)
    deadline_s = time.monotonic() + 5
    while read_lease(path.read_bytes()).get("rows") != 5 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    found = read_lease(path.read_bytes())
    lease.release()
    assert (found["rows"], found["beat"] > 0) == (5, True)


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    lease = Lease.take(run, 0, "w", Watch(60))
    assert lease is not None
    path = write_lease(run, ELSEWHERE)
    content = path.read_bytes()
    lease._thread.join(5)  # it notices, and stops
    assert not lease._thread.is_alive()
    lease.release()
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_lease_that_cannot_be_read_says_nothing_and_counts_until_the_timeout(
    run: RunDir, clock: Clock, content: bytes
) -> None:
    path = run.lease(0)
    path.write_bytes(content)
    assert read_lease(content) == {}
    watch = Watch(timeout_s=60)
    assert watch.is_live(path)
    clock.now_s += 61
    assert not watch.is_live(path)


@pytest.mark.parametrize("who", [None, {}, "text", ELSEWHERE, process.identity()])
def test_a_process_is_gone_only_where_that_is_certain(who: object) -> None:
    assert not process.is_gone(who)
