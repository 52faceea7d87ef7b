"""Around a run: the disk is checked first, and what the run showed is kept."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import UserError
from batchgen.evening import kept, outlook, start
from batchgen.evening.outlook import Outlook, images_of, left_images
from batchgen.evening.work import Job
from batchgen.plan.store import Plan
from tests.builders import finish_run, plan_run

PROMPTS: list[Any] = [f"fox {place}" for place in range(6)] + [{"prompt": "wide", "width": 96}] * 4


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    return plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)


def room_is(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(outlook, "free_bytes", lambda _: free)


def test_what_is_left_is_counted_by_size(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    every = range(plan.shard_count)
    assert left_images(plan, every) == {(64, 64): 6, (96, 64): 4} and left_images(plan, []) == {}
    assert left_images(plan, [0]).total() == 2
    monkeypatch.setattr(outlook, "_MOST_SHARDS", 2)
    assert left_images(plan, every).total() == pytest.approx(10, abs=1), "about as many, by some of the shards"
    assert images_of([Job(64, 64, 2, True, 3), Job(64, 64, 9, False, 2)]) == Counter({(64, 64): 5})


def test_too_small_a_disk_refuses_a_run_and_a_key_lets_it_go_on(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    here, every = Outlook.of_plan(plan, []), range(plan.shard_count)
    start.check_disk(plan, every, here, said.append)
    assert said == []
    room_is(monkeypatch, 1000)
    with pytest.raises(UserError, match="is too small"):
        start.check_disk(plan, every, here, said.append)
    start.check_disk(plan, [], here, said.append)
    assert said == [], "nothing is left to write"
    plan.config.launch.check_disk = False
    start.check_disk(plan, every, here, said.append)
    assert len(said) == 1


def test_a_file_system_that_does_not_tell_is_no_reason_to_refuse(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(outlook, "free_bytes", fails)
    start.check_disk(plan, [0], Outlook.of_plan(plan, []), lambda _: None)


def test_a_run_whose_logs_are_gone_is_no_error_and_keeps_nothing(plan: Plan) -> None:
    finish_run(plan)
    here = Outlook.of_plan(plan, [])
    start.keep_run(plan, here, time.time() - 9, time.time() - 8, is_over=True)
    assert kept.load(here.key).sizes == {}
