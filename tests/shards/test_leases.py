"""Leases: a live one is respected, one of somebody gone is taken at once, a silent one after a while."""

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.shards import leases
from batchgen.shards.leases import Held, Lease, Watch, live_leases, read_lease
from tests.builders import gone_process

ELSEWHERE = process.identity() | {"host": "another-machine"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.create_directories()
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
    code = "import json; from batchgen.machine import process; print(json.dumps(process.identity()))"
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
    assert read_lease(path.read_bytes()).worker == "next"
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


def take(run: RunDir, timeout_s: float = 60) -> Lease:
    lease = Lease.take(run, 0, "w", Watch(timeout_s))
    assert lease is not None
    return lease


def test_a_lease_lives_by_steps_and_not_by_a_thread(run: RunDir, clock: Clock) -> None:
    before = threading.active_count()
    lease = take(run)
    assert threading.active_count() == before
    watch = Watch(timeout_s=60)
    for _ in range(200):
        clock.now_s += 1
        lease.beat()
        assert watch.is_live(run.lease(0))
    clock.now_s += 45  # the last write is up to 15 s old
    assert watch.is_live(run.lease(0))
    clock.now_s += 16  # a kernel hangs, in a process that lives
    assert watch.stale(run.lease(0)) is not None
    assert Lease.take(run, 0, "next", watch) is not None


def test_steps_are_cheap_and_a_lease_is_written_every_15_s_or_a_quarter_of_the_timeout(
    run: RunDir, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    monkeypatch.setattr(leases, "replace", lambda path, *_, **__: written.append(path))
    for timeout_s, writes in ((60, 10), (3600, 10), (8, 75)):
        lease = take(run, timeout_s)
        for _ in range(2400):
            clock.now_s += 0.0625
            lease.beat()
        assert abs(len(written) - writes) <= 1
        written.clear()
        lease.release()


@pytest.mark.parametrize("reader_timeout_s", [0.5, 60, 300])
def test_a_first_step_may_take_five_timeouts_of_the_reader_whatever_the_holders(
    run: RunDir, clock: Clock, reader_timeout_s: float
) -> None:
    take(run, timeout_s=60)
    watch = Watch(reader_timeout_s)
    assert watch.is_live(run.lease(0))
    clock.now_s += 4.9 * reader_timeout_s
    assert watch.is_live(run.lease(0))
    clock.now_s += 0.2 * reader_timeout_s
    assert watch.stale(run.lease(0)) is not None


def test_a_slow_holder_is_given_ten_of_its_slowest_steps(run: RunDir, clock: Clock) -> None:
    watch = Watch(timeout_s=60)
    lease = take(run)
    for step_s in (5, 40, 20):
        clock.now_s += step_s
        lease.beat()
    assert watch.is_live(run.lease(0))
    clock.now_s += 399
    assert watch.is_live(run.lease(0))
    clock.now_s += 2
    assert not watch.is_live(run.lease(0))
    assert lease.step_s == 40
    lease.release()
    again = Lease.take(run, 0, "w", Watch(60), lease.step_s)
    assert again is not None and read_lease(run.lease(0).read_bytes()).step_s == 40


def test_a_lease_tells_how_far_its_worker_is(run: RunDir, clock: Clock) -> None:
    lease = take(run)
    lease.beat(rows=4)
    assert read_lease(run.lease(0).read_bytes()).rows == 0
    lease.beat(rows=5)
    clock.now_s += 15
    lease.beat()
    assert (read_lease(run.lease(0).read_bytes()).rows, read_lease(run.lease(0).read_bytes()).worker) == (5, "w")


def test_a_lease_by_name_is_one_more_lease(run: RunDir) -> None:
    path = run.leases / "probe-some-gpu"
    lease = Lease.take_named(path, "first", Watch(60))
    assert lease is not None and path.exists()
    assert Lease.take_named(path, "second", Watch(60)) is None
    assert live_leases(run, Watch(60)) == {}  # nobody works on a shard
    lease.release()
    lease.beat()  # of no use any more
    assert not path.exists()


def test_two_leases_of_one_process_are_told_apart(run: RunDir, clock: Clock) -> None:
    watch = Watch(timeout_s=60)
    first = take(run)
    assert watch.is_live(run.lease(0))
    first.release()
    clock.now_s += 3600
    second = take(run)
    first.release()
    assert watch.is_live(run.lease(0))
    second.release()


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(run: RunDir, clock: Clock) -> None:
    lease = take(run)
    path = write_lease(run, ELSEWHERE)
    content = path.read_bytes()
    for _ in range(3):
        clock.now_s += 20
        lease.beat()
    lease.release()
    assert path.read_bytes() == content


def test_a_disk_that_fails_ends_neither_the_holder_nor_the_reader(
    run: RunDir, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take(run)

    def fails(*_: Any, **__: Any) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    watch = Watch(timeout_s=60)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "read", fails)
        patch.setattr(leases, "replace", fails)
        clock.now_s += 20
        lease.beat()
        assert watch.is_live(run.lease(0))
        clock.now_s += 61
        assert not watch.is_live(run.lease(0))
        lease.release()
    assert watch.is_live(run.lease(0))  # it could not be removed, and goes stale


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_lease_that_cannot_be_read_says_nothing_and_counts_until_the_timeout(
    run: RunDir, clock: Clock, content: bytes
) -> None:
    path = run.lease(0)
    path.write_bytes(content)
    assert read_lease(content) == Held()
    watch = Watch(timeout_s=60)
    assert watch.is_live(path)
    clock.now_s += 61
    assert not watch.is_live(path)


def test_fields_that_no_holder_writes_say_nothing() -> None:
    content = b'{"worker": [1], "process": 3, "rows": "x", "step_s": NaN, "token": 5}'
    assert read_lease(content) == Held(process=3)
    assert read_lease(b'{"step_s": Infinity, "rows": -1}') == Held()
    assert read_lease(b'{"worker": "w", "rows": 3, "beat": 7}') == Held("w", rows=3)  # of 2f10da6


@pytest.mark.parametrize("who", [None, {}, "text", ELSEWHERE, process.identity()])
def test_a_process_is_gone_only_where_that_is_certain(who: object) -> None:
    assert not process.is_gone(who)


def test_of_several_that_take_over_one_lease_one_succeeds(run: RunDir) -> None:
    """Each of them has seen that it is stale before the first one takes it."""
    path = write_lease(run, gone_process())
    watches = [Watch(60) for _ in range(3)]
    seen = [watch.stale(path) for watch in watches]
    assert None not in seen
    first = Lease.take(run, 0, "first", watches[0])
    assert first is not None
    for stale in seen[1:]:
        assert stale is not None and not leases._removed(path, stale)
    assert read_lease(path.read_bytes()).worker == "first"
    first.release()
    assert list(run.leases.iterdir()) == []
