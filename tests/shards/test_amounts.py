"""How much the open shards of a plan lack, by work and not by images."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.shards import amounts
from batchgen.shards.amounts import Amounts
from batchgen.shards.eta import work_of
from tests.builders import RECORD, plan_run

ROWS: list[Any] = [f"fox {place}" for place in range(4)] + [{"prompt": "wide", "width": 128, "steps": 8}] * 4


def test_what_is_made_of_a_shard_is_taken_off_its_work(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, ROWS)
    works = [[work_of(batch) for batch in plan.shard(shard)[0].batches] for shard in range(plan.shard_count)]
    assert Amounts(plan).left({0, 1}, {}) == [sum(works[0]), sum(works[1])]
    assert works[1][0] > 2 * works[0][0]
    assert Amounts(plan).left({0, 1}, {1: 3}) == [sum(works[0]), works[1][1] / 2]
    assert Amounts(plan).left({1}, {1: 4}) == [0.0] and Amounts(plan).left(set(), {}) == []
    unit: Any = RECORD | {"shard": 1, "batch": 0, "images": 1}
    assert Amounts(plan).of(unit) == works[1][0] / 2


def test_of_many_shards_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, [f"fox {place}" for place in range(40)], output__batches_per_shard=1)
    every = set(range(plan.shard_count))
    whole = Amounts(plan).left(every, {})
    monkeypatch.setattr(amounts, "_READ_SHARDS", 3)
    assert Amounts(plan).left(every, {}) == pytest.approx(whole)


def test_a_plan_that_cannot_be_read_counts_images(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, [f"hare {place}" for place in range(4)])
    plan.run.plan.shard(0).write_bytes(b"")
    left = Amounts(plan).left({0}, {})
    assert len(left) == 1 and left[0] > 0
