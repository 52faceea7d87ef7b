"""What is in of a run: by manifests and by the sizes of tars, and never by manifests alone."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BrokenRunError
from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards import attempt as shards
from batchgen.shards.finish import finish
from batchgen.shards.progress import (
    Progress,
    failed_samples,
    finished_by_name,
    progress_line,
    read_progress,
    shard_states,
)
from tests.builders import append_batches, flip, full_attempt, plan_run, start_attempt, truncate

PROMPTS = [f"fox {number}" for number in range(6)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three shards of two, of which two are committed."""
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    for shard in (0, 1):
        full_attempt(plan, shard).commit()
    return plan


def test_what_is_in_and_what_is_to_be_made(plan: Plan) -> None:
    states = shard_states(plan)
    assert (set(states.whole), states.broken, set(states.open)) == ({0, 1}, {}, {2})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda plan: plan.run.tar(1).unlink(), "shard 000001's tar is missing"),
        (lambda plan: truncate(plan.run.tar(1), 700), "shard 000001's tar has "),
        (lambda plan: flip(plan.run.manifest(1), 50), "shard 000001's manifest is damaged"),
        (lambda plan: plan.run.manifest(1).rename(plan.run.shards / "0000001.json"), "manifest is damaged"),
    ],
    ids=["tar gone", "tar cut", "manifest damaged", "manifest of another spelling"],
)
def test_a_committed_shard_that_came_to_harm_is_neither_in_nor_to_be_made(
    plan: Plan, harm: Callable[[Plan], object], said: str
) -> None:
    assert shard_states(plan).broken == {}
    harm(plan)
    states = shard_states(plan)
    assert (set(states.whole), set(states.open)) == ({0}, {2})
    assert said in states.broken[1]
    complaint = states.complaint(plan.run)
    assert said in complaint and "batchgen.repair" in complaint
    assert ("put them back" in complaint) == (not plan.run.tar(1).exists()), "only tars that are gone can be put back"


def test_a_shard_that_another_run_made_is_broken(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = plan_run(tmp_path / "other", PROMPTS, job__seed=5, output__batches_per_shard=1)
    full_attempt(other, 2).commit()
    for name in ("000002.tar", "000002.json"):
        shutil.copy(other.run.shards / name, plan.run.shards)
    states = shard_states(plan)
    assert (set(states.whole), set(states.open)) == ({0, 1}, set())
    assert states.broken == {2: "shard 000002's manifest belongs to another run or plan"}
    with pytest.raises(BrokenRunError, match="belongs to another run or plan"):
        finish(plan)
    assert not plan.run.index.exists()


def test_what_the_display_counts_has_a_tar(plan: Plan) -> None:
    assert set(finished_by_name(plan)) == {0, 1}
    plan.run.tar(1).unlink()
    assert set(finished_by_name(plan)) == {0}


def test_a_commit_that_was_cut_off_is_in(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = full_attempt(plan, 2)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            attempt.commit()
    assert not plan.run.tar(2).exists()
    assert shard_states(plan).whole == {0, 1, 2}


def test_progress_counts_committed_shards_and_the_units_of_open_ones(plan: Plan) -> None:
    attempt = start_attempt(plan, 2)
    append_batches(attempt, plan.shard(2)[0].batches)
    attempt.close()
    progress = read_progress(plan)
    assert (progress.images, progress.planned_images, progress.shards, progress.planned_shards) == (6, 6, 2, 3)
    assert (progress.workers, progress.peak_bytes) == (0, 1 << 20)
    assert progress_line(progress) == "6/6 images, 2/3 shards, peak memory 0.00 GiB"


def test_the_line_says_the_rate_and_the_time_left_while_somebody_works() -> None:
    line = progress_line(Progress(10, 130, 1, 13, 2, 0.5, None, 240))
    assert re.fullmatch(r"10/130 images, 1/13 shards, 0.50 images/s, ETA 4m00s, at \d\d:\d\d( on \w+)?", line)


def test_the_newest_shard_that_planned_an_image_says_whether_it_failed(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    bad = plan.shard(0)[0].keys[1]
    full_attempt(plan, 0, [bad]).commit()
    full_attempt(plan, 1).commit()
    assert list(failed_samples(plan)) == [bad]


def made_by(plan: Plan, shard: int, worker: str, start_s: float, seconds: float) -> None:
    """Commit a shard that a worker began at `start_s`, s before now, and made in one unit; its log says so."""
    images = len(plan.shard(shard)[0].batches[0].prompts)
    began, made = (datetime.now(UTC) - timedelta(seconds=before_s) for before_s in (start_s, start_s - seconds))
    events: list[Any] = [
        {"at": began.isoformat(), "event": "shard", "shard": shard, "rows_resumed": 0},
        {"at": made.isoformat(), "event": "made", "shard": shard, "batch": 0, "images": images},
    ]
    with plan.run.worker_log(worker).open("a") as log:
        log.writelines(json.dumps(event) + "\n" for event in events)
    assert full_attempt(plan, shard).commit()


def holds(plan: Plan, worker: str, shard: int) -> None:
    content = {"worker": worker, "process": process.identity(), "rows": 0}
    plan.run.lease(shard).write_text(json.dumps(content))


def test_the_time_left_goes_by_what_all_workers_did_together(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, [f"fox {place}" for place in range(20)], output__batches_per_shard=1)
    # Worker a has the device to itself for two shards, 2 s each; then both take 8 s for a shard: 0.5 images/s.
    made_by(plan, 0, "a", 20, 2)
    made_by(plan, 1, "a", 18, 2)
    for shard, worker in ((2, "a"), (3, "b"), (4, "a"), (5, "b")):
        made_by(plan, shard, worker, 16 if shard < 4 else 8, 8)
    holds(plan, "a", 6)
    holds(plan, "b", 7)
    progress = read_progress(plan)
    assert (progress.images, progress.workers) == (12, 2)
    assert progress.images_per_s == pytest.approx(0.5, rel=0.05)
    assert progress.eta_s == pytest.approx(8 / 0.5, rel=0.05)


def test_rows_that_take_longer_count_for_more(tmp_path: Path) -> None:
    rows: list[Any] = ["fox"] * 8 + [{"prompt": "wide", "width": 256}] * 4
    plan = plan_run(tmp_path, rows, output__batches_per_shard=1)
    small = [shard for shard in range(6) if plan.shard(shard)[0].batches[0].size == (64, 64)]
    for shard in small:
        made_by(plan, shard, "a", 16 - 4 * small.index(shard), 4)
    holds(plan, "a", next(iter(set(range(6)) - set(small))))
    progress = read_progress(plan)
    assert (progress.images, progress.planned_images) == (8, 12)
    assert progress.images_per_s == pytest.approx(0.5, rel=0.05)
    assert progress.eta_s == pytest.approx(4 * 4 / 0.5, rel=0.05), "each has four times the pixels"
