"""What is in of a run: by manifests and by the sizes of tars, and never by manifests alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.errors import BrokenRunError
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
    assert line == "10/130 images, 1/13 shards, 0.50 images/s, ETA 4m00s"


def test_the_newest_shard_that_planned_an_image_says_whether_it_failed(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    bad = plan.shard(0)[0].keys[1]
    full_attempt(plan, 0, [bad]).commit()
    full_attempt(plan, 1).commit()
    assert list(failed_samples(plan)) == [bad]
