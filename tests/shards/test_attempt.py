"""The commit protocol: what an attempt leaves is used again, a shard is committed once, and a crash loses nothing."""

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from batchgen import files
from batchgen.errors import BrokenRunError
from batchgen.files import sha256_file
from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards import attempt as shards
from batchgen.shards.attempt import is_done, publish, read_manifest, sweep
from batchgen.shards.journal import read_journal
from tests.builders import (
    append_batches,
    flip,
    full_attempt,
    gone_process,
    leave_attempt,
    plan_run,
    start_attempt,
    truncate,
)

BATCHES = 3
PROMPTS = [f"fox {number}" for number in range(2 * BATCHES)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """One shard of three batches of two."""
    return plan_run(tmp_path, PROMPTS, output__batches_per_shard=BATCHES)


def work_files(plan: Plan) -> set[str]:
    return {path.name for path in plan.run.work.iterdir()}


def resumed_rows(plan: Plan) -> int:
    attempt = start_attempt(plan)
    attempt.resume()
    attempt.close()
    return attempt.rows


def test_a_commit_publishes_tar_manifest_and_log_and_empties_work(plan: Plan) -> None:
    assert not is_done(plan.run, 0)
    attempt = full_attempt(plan)
    assert attempt.commit()
    assert is_done(plan.run, 0)
    assert work_files(plan) == set()
    manifest = read_manifest(plan.run, 0)
    assert manifest["sha256"] == sha256_file(plan.run.tar(0))
    assert manifest["bytes"] == plan.run.tar(0).stat().st_size
    keys = plan.shard(0)[0].keys
    assert [sample["key"] for sample in manifest["samples"]] == keys
    with tarfile.open(plan.run.tar(0)) as tar:
        assert tar.getnames() == [f"{key}.{name}" for key in keys for name in ("json", "png", "txt")]
    log = read_journal(plan.run.memory_log(0))
    assert log is not None
    assert log.header["attempt"] == manifest["attempt"] == attempt.files.attempt
    assert log.rows == len(PROMPTS)


def test_a_failed_sample_is_in_the_manifest_with_its_reason_and_not_in_the_tar(plan: Plan) -> None:
    bad = plan.shard(0)[0].keys[1]
    full_attempt(plan, failed={bad}).commit()
    [entry] = [sample for sample in read_manifest(plan.run, 0)["samples"] if sample["key"] == bad]
    assert (entry["status"], bool(entry["reason"])) == ("failed", True)
    with tarfile.open(plan.run.tar(0)) as tar:
        assert not [name for name in tar.getnames() if name.startswith(bad)]
        assert len(tar.getnames()) == 3 * (len(PROMPTS) - 1)


@pytest.mark.parametrize("batches", range(BATCHES + 1))
def test_a_resumed_shard_is_the_one_that_an_uninterrupted_attempt_makes(
    plan: Plan, tmp_path: Path, batches: int
) -> None:
    (tmp_path / "other").mkdir()
    whole = plan_run(tmp_path / "other", PROMPTS, output__batches_per_shard=BATCHES)
    full_attempt(whole).commit()
    leave_attempt(plan, batches)
    attempt = start_attempt(plan)
    attempt.resume()
    assert attempt.rows == 2 * batches
    append_batches(attempt, plan.shard(0)[0].batches[batches:])
    assert attempt.commit()
    assert plan.run.tar(0).read_bytes() == whole.run.tar(0).read_bytes()
    assert read_manifest(plan.run, 0)["samples"] == read_manifest(whole.run, 0)["samples"]


def test_resume_takes_the_longest_of_several_attempts(plan: Plan) -> None:
    for batches in (1, 2, 0):
        leave_attempt(plan, batches)
    assert resumed_rows(plan) == 4


def test_what_a_resumed_attempt_took_over_can_be_resumed_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "identity", gone_process)
    leave_attempt(plan, 2)
    assert [resumed_rows(plan), resumed_rows(plan)] == [4, 4]
    assert len(plan.run.attempts(0)) == 1  # the earlier ones are gone: their rows are in the last


DAMAGES: dict[str, tuple[Any, int]] = {
    "none": (lambda tar, journal: None, 4),
    "tar goes on past the last record": (lambda tar, journal: tar.write_bytes(tar.read_bytes() + b"x" * 700), 4),
    "journal line torn": (lambda tar, journal: truncate(journal, 40), 2),
    "newline of the journal lost": (lambda tar, journal: truncate(journal, 1), 2),
    "journal line changed": (lambda tar, journal: flip(journal, -100), 2),
    "last tar byte flipped": (lambda tar, journal: flip(tar, -1), 2),
    "tar one byte short": (lambda tar, journal: truncate(tar, 1), 2),
    "first tar byte flipped": (lambda tar, journal: flip(tar, 0), 0),
    "journal header changed": (lambda tar, journal: flip(journal, 20), 0),
    "tar gone": (lambda tar, journal: tar.unlink(), 0),
    "journal gone": (lambda tar, journal: journal.unlink(), 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_uses_exactly_what_is_sound(plan: Plan, damage: str) -> None:
    act, rows = DAMAGES[damage]
    left = leave_attempt(plan, 2)
    act(left.files.tar, left.files.journal)
    assert resumed_rows(plan) == rows


@pytest.mark.parametrize("foreign", ["run_id", "plan_digest"])
def test_an_attempt_of_another_run_or_plan_is_not_used(plan: Plan, foreign: str) -> None:
    leave_attempt(plan, 2, **{foreign: "f" * 32})
    assert resumed_rows(plan) == 0


@pytest.mark.parametrize("gone", [True, False])
def test_resume_removes_the_files_of_dead_processes_alone(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    with monkeypatch.context() as patch:
        if gone:
            patch.setattr(process, "identity", gone_process)
        left = leave_attempt(plan, 1)
    resumed_rows(plan)
    assert left.files.tar.exists() != gone
    assert left.files.journal.exists() != gone


def test_a_full_disk_costs_the_unit_under_way_alone(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = leave_attempt_with_full_disk(plan, monkeypatch)
    assert attempt.rows == 2
    assert resumed_rows(plan) == 2


def leave_attempt_with_full_disk(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> shards.Attempt:
    attempt = start_attempt(plan)
    batches = plan.shard(0)[0].batches
    append_batches(attempt, batches[:1])

    def write_half(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_all", write_half)
        with pytest.raises(OSError, match="no space"):
            append_batches(attempt, batches[1:2])
    attempt.close()
    return attempt


def test_the_second_of_two_attempts_loses_and_removes_only_its_own_files(plan: Plan) -> None:
    first, second, bystander = full_attempt(plan), full_attempt(plan), full_attempt(plan)
    assert first.commit()
    committed = {path: path.read_bytes() for path in (plan.run.tar(0), plan.run.manifest(0), plan.run.memory_log(0))}
    assert not second.commit()
    assert {path: path.read_bytes() for path in committed} == committed
    assert work_files(plan) == {bystander.files.tar.name, bystander.files.journal.name}
    bystander.close()


@pytest.mark.parametrize("puts", [0, 1, 2])
def test_a_crash_in_the_commit_loses_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch, puts: int) -> None:
    """It is killed before it links the manifest, the tar, the log: from the manifest on, anybody can publish it."""
    attempt = full_attempt(plan)
    done: list[Path] = []

    def put_or_die(source: Path, target: Path) -> bool:
        if len(done) == puts:
            raise KeyboardInterrupt
        done.append(target)
        return files.put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "put", put_or_die)
        with pytest.raises(KeyboardInterrupt):
            attempt.commit()
    assert is_done(plan.run, 0) == (puts > 0)
    if puts:
        assert read_manifest(plan.run, 0)["sha256"] == sha256_file(plan.run.tar(0))
        assert plan.run.memory_log(0).exists()
        assert work_files(plan) == set()
    else:
        assert resumed_rows(plan) == len(PROMPTS)


def test_a_link_whose_reply_was_lost_still_counts_as_won(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "put", lambda source, target: files.put(source, target) and False)
    attempt = full_attempt(plan)
    assert attempt.commit()
    assert read_manifest(plan.run, 0)["attempt"] == attempt.files.attempt


def test_an_attempt_that_is_not_whole_cannot_be_committed(plan: Plan) -> None:
    attempt = start_attempt(plan)
    append_batches(attempt, plan.shard(0)[0].batches[:2])
    with pytest.raises(BrokenRunError, match="keys other than the planned ones"):
        attempt.commit()
    attempt.close()
    assert not is_done(plan.run, 0)


@pytest.mark.parametrize("offset", [0, 200, -2])
def test_a_damaged_manifest_is_named(plan: Plan, offset: int) -> None:
    full_attempt(plan).commit()
    flip(plan.run.manifest(0), offset)
    with pytest.raises(BrokenRunError, match=r"000000\.json is damaged"):
        read_manifest(plan.run, 0)


def test_a_manifest_under_the_number_of_another_shard_is_refused(plan: Plan) -> None:
    full_attempt(plan).commit()
    plan.run.manifest(0).rename(plan.run.manifest(1))
    with pytest.raises(BrokenRunError, match=r"000001\.json"):
        read_manifest(plan.run, 1)


def test_publish_refuses_a_tar_of_another_size(plan: Plan) -> None:
    full_attempt(plan).commit()
    truncate(plan.run.tar(0), 1)
    with pytest.raises(BrokenRunError, match="bytes, but"):
        publish(plan.run, read_manifest(plan.run, 0))


def test_a_committed_tar_that_is_lost_for_good_is_named(plan: Plan) -> None:
    full_attempt(plan).commit()
    plan.run.tar(0).unlink()
    with pytest.raises(BrokenRunError, match=r"000000\.tar"):
        is_done(plan.run, 0)


def test_a_shard_is_in_without_its_memory_log(plan: Plan) -> None:
    full_attempt(plan).commit()
    shutil.rmtree(plan.run.memory_logs.parent)
    assert is_done(plan.run, 0)
    publish(plan.run, read_manifest(plan.run, 0))


def test_a_commit_goes_on_where_somebody_removes_the_logs_meanwhile(plan: Plan) -> None:
    attempt = full_attempt(plan)
    shutil.rmtree(plan.run.memory_logs.parent)
    assert attempt.commit()
    assert is_done(plan.run, 0) and plan.run.memory_log(0).exists()


def test_sweep_removes_what_is_left_of_committed_shards_alone(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    left, open_one = leave_attempt(plan, 1), full_attempt(plan, 1)
    open_one.close()
    full_attempt(plan, 0).commit()
    assert left.files.tar.exists()
    sweep(plan.run)
    assert work_files(plan) == {open_one.files.tar.name, open_one.files.journal.name}
