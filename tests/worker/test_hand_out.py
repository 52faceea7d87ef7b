"""Which shard a worker tries next, and what it does not look at for that."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.paths import RunDir
from batchgen.plan.records import ShardSize
from batchgen.plan.store import Plan
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.settled import settled_by_name
from batchgen.worker import hand_out
from batchgen.worker.hand_out import HandOut, main_part
from tests.builders import full_attempt, plan_run


def planned(tmp_path: Path, sizes: Sequence[int]) -> Plan:
    """A plan of one-row shards that states other numbers of images."""
    prompts = [f"fox {number}" for number in range(len(sizes))]
    plan = plan_run(tmp_path, prompts, job__batch_size=1, output__batches_per_shard=1)
    segment = replace(plan.segments[0], shards=[ShardSize(1, size) for size in sizes])
    return replace(plan, segments=[segment])


def worker(plan: Plan, rank: int = 0, world: int = 1, timeout_s: float = 60) -> HandOut:
    return HandOut(plan, f"w{rank}", (rank, world), Watch(timeout_s))


def shard_of(hand_out: HandOut) -> int | None:
    return None if hand_out.is_over() else hand_out.next()


def hold(plan: Plan, shard: int) -> Lease:
    lease = Lease.take(plan.run, shard, "other", Watch(60))
    assert lease is not None
    return lease


def make(plan: Plan, shard: int) -> None:
    assert full_attempt(plan, shard).commit()


def made_by(plan: Plan, hand_out: HandOut) -> list[int]:
    """The shards in the order in which one worker makes all that it is given."""
    order = []
    while (shard := shard_of(hand_out)) is not None:
        hand_out.took(shard)
        make(plan, shard)
        hand_out.settle(shard)
        order.append(shard)
    return order


@pytest.mark.parametrize(
    ("images", "shards"),
    [([], 0), ([5], 1), ([8, 8, 8, 3], 3), ([1, 2, 8, 8, 7, 4, 3, 2, 2], 6), ([8, 2, 8, 1], 3), ([4, 4, 4], 3)],
)
def test_the_main_part_ends_with_the_last_shard_that_is_not_small(images: list[int], shards: int) -> None:
    assert main_part(images) == shards


def test_every_worker_goes_round_the_main_part_and_ends_with_the_small_shards(tmp_path: Path) -> None:
    plan = planned(tmp_path, [8, 8, 8, 8, 3, 2, 1])
    assert made_by(plan, worker(plan, 1, 2)) == [2, 3, 0, 1, 4, 5, 6]


def test_workers_begin_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path, [8] * 9 + [3, 2, 1])
    assert [shard_of(worker(plan, rank, 3)) for rank in range(3)] == [0, 3, 6]
    assert [shard_of(worker(plan, rank, 12)) for rank in range(12)] == list(range(12))
    for shard in (0, 1, 2, 3):
        make(plan, shard)
    held = hold(plan, 5)
    assert [shard_of(worker(plan, rank, 2)) for rank in range(2)] == [4, 7]
    held.release()


def test_at_the_end_a_worker_goes_on_behind_the_last_lease_and_comes_back_for_what_is_left(tmp_path: Path) -> None:
    plan = planned(tmp_path, [8, 2, 2, 2, 2, 1])
    make(plan, 0)
    late = worker(plan)
    lease = hold(plan, 3)
    assert made_by(plan, late) == [1, 4, 5, 2]
    lease.release()
    assert made_by(plan, late) == [3]


def test_who_loses_a_race_tries_elsewhere(tmp_path: Path) -> None:
    plan = planned(tmp_path, [8] * 50 + [1] * 200)
    for part in (range(50), range(50, 250)):
        wants = set()
        for rank in range(20):
            mine = HandOut(plan, f"w{rank}", (0, 1), Watch(60))
            assert (first := shard_of(mine)) == part[0]
            mine.lost(first)
            wants.add(shard_of(mine))
        assert len(wants) > 4 and wants < set(part) - {part[0]}
        for shard in range(50):
            if shard not in plan.run.committed():
                make(plan, shard)


def test_who_meets_the_work_of_others_goes_on_elsewhere_after_one_look_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, [8] * 60)
    mine = worker(plan)
    assert shard_of(mine) == 0
    for shard in range(40):
        make(plan, shard)
    mine.settle(0)
    listed: list[RunDir] = []

    def settled(run: RunDir) -> tuple[set[int], set[int]]:
        listed.append(run)
        return settled_by_name(run)

    monkeypatch.setattr(hand_out, "settled_by_name", settled)
    assert (found := shard_of(mine)) is not None and found >= 40
    assert len(listed) == 1
    assert len(made_by(plan, mine)) == 20
    assert len(listed) == 1  # all that was settled since, this worker made


def test_a_shard_in_the_middle_costs_a_look_at_its_manifest_and_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, [8] * 30)
    mine = worker(plan, 1, 3)
    assert shard_of(mine) == 10
    others = [hold(plan, shard) for shard in (0, 20)]
    looked: list[str] = []
    real = Path.stat

    def stat(self: Path, **options: Any) -> Any:
        looked.append(f"{self.parent.name}/{self.name}")
        return real(self, **options)

    def fails(*_: object) -> None:
        raise AssertionError("nothing is listed")

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(RunDir, "listed", fails)
    monkeypatch.setattr(RunDir, "shard_leases", fails)
    mine.took(10)
    mine.settle(10)
    assert mine.next() == 11
    assert looked == ["shards/000011.json", "leases/000011"]
    monkeypatch.undo()
    for lease in others:
        lease.release()


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The leases that are looked at from now on."""
    read: list[Path] = []
    real = Watch.is_live

    def is_live(self: Watch, path: Path) -> bool:
        read.append(path)
        return real(self, path)

    monkeypatch.setattr(Watch, "is_live", is_live)
    return read


def test_the_leases_of_the_gone_are_found_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, [8] * 40)
    leases = [hold(plan, shard) for shard in range(40)]
    gone = plan.run.lease(33)
    gone.write_text(gone.read_text().replace('"started":', '"started":1'))
    now_s = [1000.0]
    monkeypatch.setattr(hand_out, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    read = count_looks(monkeypatch)
    mine = worker(plan)
    looks = []
    while (shard := shard_of(mine)) is None:
        looks.append(len(read))
        read.clear()
        now_s[0] += 20
    assert shard == 33 and len(looks) <= 3 and set(looks) <= {16}
    for lease in leases:
        lease.release()


def test_a_look_for_the_gone_is_not_taken_at_each_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, [8])
    lease = hold(plan, 0)
    now_s = [1000.0]
    monkeypatch.setattr(hand_out, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    read = count_looks(monkeypatch)
    mine = worker(plan)
    for waited_s, looks in ((0, 1), (14, 1), (2, 2), (3, 2)):
        now_s[0] += waited_s
        assert shard_of(mine) is None
        assert len(read) == looks
    lease.release()
