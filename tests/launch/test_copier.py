"""The threads that copy: order, leases, and what a crash at any point leaves. The places are folders and the hub."""

import time
from contextlib import suppress
from pathlib import Path

import pytest

from batchgen.errors import StoreError
from batchgen.launch import copier as module
from batchgen.launch.copier import Copier
from batchgen.plan.store import Plan
from batchgen.shards.copies import copied, keep_record, lease_path, record_of
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.progress import shard_states
from batchgen.stores.bucket import Bucket
from tests.builders import finish_run, flip, plan_run
from tests.commands import wait_for


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "_LOOK_AT_END_S", 0.05)
    monkeypatch.setattr(module, "_SHARE_OF_LOOKING", 0)
    monkeypatch.setattr(module, "_BEAT_EVERY_S", 0.05)
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(16)])
    plan.config.output.copy_to = str(tmp_path / "there")
    finish_run(plan)
    return plan


class Crew:
    """A copier at work, and what it said."""

    def __init__(self, plan: Plan, store: Bucket | None = None) -> None:
        self.said: list[str] = []
        self.copier = Copier(plan, store or Bucket(str(plan.config.output.copy_to)), self.said.append)

    def __enter__(self) -> "Crew":
        self.copier.is_ending = True
        self.copier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.copier.close()

    def wait(self) -> None:
        wait_for(lambda: not self.copier.left() - self.copier.harmed.keys(), timeout_s=20)


def there(plan: Plan) -> dict[str, bytes]:
    root = Path(str(plan.config.output.copy_to))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def here(plan: Plan) -> dict[str, bytes]:
    root = plan.run.root
    paths = [*plan.run.shards.iterdir(), *plan.run.memory_logs.iterdir(), plan.run.index]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_all_is_copied_as_it_is_and_no_lease_stays(plan: Plan) -> None:
    with Crew(plan) as crew:
        crew.wait()
    assert there(plan) == here(plan)
    assert copied(plan.run) == {0, 1, 2, 3} and list(plan.run.leases.iterdir()) == []
    assert crew.said == []
    record = record_of(plan.run, 2)
    assert record is not None and record["keeps_local"] and record["url"].endswith("/there/shards/000002.tar")


def test_what_others_copy_is_left_to_them(plan: Plan) -> None:
    other = Lease.take_named(lease_path(plan.run, 1), "other", Watch(60.0))
    assert other is not None
    with Crew(plan) as crew:
        wait_for(lambda: crew.copier.left() == {1})
        time.sleep(0.3)
        assert crew.copier.left() == {1} and not crew.copier.is_busy
        other.release()
        crew.wait()


def test_tars_leave_only_after_their_record(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.config.output.keep_local = False
    before = here(plan)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "keep_record", refuse)
    with Crew(plan) as crew:
        wait_for(lambda: crew.said != [])
    assert plan.run.tars() == {0, 1, 2, 3} and copied(plan.run) == set()
    assert "No space left on device; the run goes on, and they are tried again" in crew.said[0]
    monkeypatch.setattr(module, "keep_record", keep_record)
    with Crew(plan) as crew:
        crew.wait()
    assert plan.run.tars() == set() and there(plan) == before
    assert shard_states(plan).whole == {0, 1, 2, 3}


def test_a_crash_between_the_record_and_the_removal(plan: Plan) -> None:
    with Crew(plan) as crew:  # keep_local is true: what a crash would leave, but for what the record says
        crew.wait()
    before = here(plan)
    root = Path(str(plan.config.output.copy_to))
    flip(root / "shards" / "000002.tar", 700)
    (root / "shards" / "000001.tar").unlink()
    plan.config.output.keep_local = False
    with Crew(plan) as crew:
        crew.wait()
    assert plan.run.tars() == set()
    assert all((record := record_of(plan.run, shard)) and not record["keeps_local"] for shard in range(4))
    assert there(plan) == before, "copies that were lost or damaged meanwhile are made again before a tar leaves"


def test_a_shard_that_came_to_harm_is_told_once_and_stays(plan: Plan) -> None:
    plan.config.output.keep_local = False
    flip(plan.run.tar(1), 700)
    with Crew(plan) as crew:
        wait_for(lambda: crew.copier.left() == {1})
        time.sleep(0.3)
    assert list(crew.copier.harmed) == [1] and len(crew.said) == 1
    assert "000001.tar is not the file that was committed" in crew.said[0]
    assert plan.run.tars() == {1} and copied(plan.run) == {0, 2, 3}


def test_a_store_that_fails_is_told_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from batchgen.stores import outage

    store, calls, is_away = Bucket(str(plan.config.output.copy_to)), [0], [True]
    put = store.put

    def maybe(*arguments):
        calls[0] += 1
        if is_away[0]:
            raise StoreError("the store is away")
        return put(*arguments)

    monkeypatch.setattr(store, "put", maybe)
    monkeypatch.setattr(outage, "_LONGEST_PAUSE_S", 0.1)
    with Crew(plan, store) as crew:
        wait_for(lambda: calls[0] > 5)
        is_away[0] = False
        crew.wait()
        wait_for(lambda: len(crew.said) == 2)
    first, last = crew.said
    assert first == "copies have to wait: the store is away; the run goes on, and they are tried again"
    assert last == f"copies to {plan.config.output.copy_to} go on"
    assert there(plan) == here(plan)


def test_a_lease_is_renewed_while_a_copy_takes_long(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.config.launch.lease_timeout_s = 0.4
    store = Bucket(str(plan.config.output.copy_to))
    put = store.put

    def slow(*arguments):
        time.sleep(1.0)
        return put(*arguments)

    monkeypatch.setattr(store, "put", slow)
    with Crew(plan, store) as crew:
        wait_for(lambda: crew.copier.is_busy)
        held = next(iter(plan.run.leases.glob("copy-0*")))
        beats = set[bytes]()
        with suppress(FileNotFoundError):
            while True:
                beats.add(held.read_bytes())
                time.sleep(0.05)
        assert len(beats) > 3
