"""How much the open shards of a plan lack, by work and not by images."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.shards import amounts as module
from batchgen.shards.amounts import Amounts
from batchgen.shards.eta import work_of
from batchgen.shards.worker_log import Unit
from tests.builders import plan_run

ROWS: list[Any] = [f"fox {place}" for place in range(4)] + [{"prompt": "wide", "width": 128, "steps": 8}] * 4


def test_what_is_made_of_a_shard_is_taken_off_its_work(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, ROWS)
    works = [[work_of(batch) for batch in plan.shard(shard)[0].batches] for shard in range(plan.shard_count)]
    amounts = Amounts(plan, {0, 1})
    assert amounts.left({0, 1}, {}) == [sum(works[0]), sum(works[1])]
    assert works[1][0] > 2 * works[0][0]
    assert amounts.left({0, 1}, {1: 3}) == [sum(works[0]), works[1][1] / 2]
    assert amounts.left({1}, {1: 4}) == [0.0] and amounts.left(set(), {}) == []
    assert amounts.of(Unit(1, 0, 1, 0.0, 1.0)) == works[1][0] / 2
    assert amounts.of(Unit(1, 9, 1, 0.0, 1.0)) > 0, "of a batch that is not planned"


def test_of_many_shards_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, [f"fox {place}" for place in range(40)], output__batches_per_shard=1)
    every = set(range(plan.shard_count))
    whole = Amounts(plan, every).left(every, {1: 1})
    monkeypatch.setattr(module, "_READ_SHARDS", 3)
    assert Amounts(plan, every).left(every, {1: 1}) == pytest.approx(whole)


def test_a_plan_that_cannot_be_read_counts_images(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, [f"hare {place}" for place in range(4)])
    plan.run.plan.shard(0).write_bytes(b"")
    left = Amounts(plan, {0}).left({0}, {})
    assert len(left) == 1 and left[0] > 0
