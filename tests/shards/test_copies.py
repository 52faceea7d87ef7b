"""Records of checked copies, and what they say of a tar that is gone."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.shards.attempt import is_done, publish, read_manifest, tar_problem
from batchgen.shards.copies import (
    CopyRecord,
    ask_store,
    copied,
    copiers,
    copies_line,
    files_of,
    is_elsewhere,
    keep_record,
    lease_path,
    new_record,
    record_of,
    record_path,
    sweep_leases,
    to_copy,
)
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.progress import finished_by_name, shard_states
from tests.builders import finish_run, plan_run


def record_for(run: RunDir, shard: int, to: str, **changes: Any) -> CopyRecord:
    manifest = read_manifest(run, shard)
    url = f"{to}/shards/{shard:06d}.tar"
    facts = {"run_id": manifest["run_id"], "attempt": manifest["attempt"], "bytes": manifest["bytes"]}
    facts |= {"sha256": manifest["sha256"], "to": to, "url": url, "checked": "by hand", "store_checksum": None}
    return new_record(**facts | {"shard": shard, "keeps_local": False} | changes)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(8)])
    finish_run(plan)
    return plan


def test_a_tar_that_left_is_no_harm(plan: Plan) -> None:
    run = plan.run
    assert not is_elsewhere(run, 0, read_manifest(run, 0)["attempt"], read_manifest(run, 0)["bytes"])
    keep_record(run, record_for(run, 0, "memory://a"))
    run.tar(0).unlink()
    assert shard_states(plan).broken == {} and is_done(run, 0)
    assert finished_by_name(plan) == {0, 1}
    publish(run, read_manifest(run, 0))  # as a worker does that was stopped while it published
    assert shard_states(plan).whole == {0, 1}


@pytest.mark.parametrize(
    "changes", [{"keeps_local": True}, {"attempt": "0" * 32}, {"bytes": 5}, {"shard": 1}, {"format": 99}], ids=str
)
def test_a_record_that_does_not_speak_for_the_tar(plan: Plan, changes: dict) -> None:
    run, manifest = plan.run, read_manifest(plan.run, 0)
    record = {**record_for(run, 0, "memory://a"), **changes}
    keep_record(run, record)  # type: ignore[arg-type]
    record_path(run, record["shard"]).replace(record_path(run, 0))
    run.tar(0).unlink()
    assert tar_problem(run, 0, manifest["attempt"], manifest["bytes"]) == "shard 000000's tar is missing"
    assert list(shard_states(plan).broken) == [0]


def test_a_damaged_record_does_not_count(plan: Plan) -> None:
    keep_record(plan.run, record_for(plan.run, 0, "memory://a"))
    path = plan.run.copy_record(0)
    assert json.loads(path.read_bytes())["to"] == "memory://a"
    path.write_bytes(path.read_bytes().replace(b"memory://a", b"memory://b"))
    assert record_of(plan.run, 0) is None
    assert record_of(plan.run, 1) is None


def test_what_is_left(plan: Plan) -> None:
    assert (to_copy(plan), copies_line(plan), copied(plan.run)) == (set(), None, set())
    plan.config.output.copy_to = "memory://a"
    assert to_copy(plan) == {0, 1}
    keep_record(plan.run, record_for(plan.run, 1, "memory://a"))
    keep_record(plan.run, {**record_for(plan.run, 0, "memory://a"), "shard": None, "attempt": ""}, "index.json")
    assert (to_copy(plan), copied(plan.run)) == ({0}, {1}), "the record of the index is no shard's"
    assert copies_line(plan) == "1 of 2 shards are copied to memory://a"
    assert load_plan(plan.run).config.output.copy_to is None


def test_the_manifest_goes_last(plan: Plan) -> None:
    run = plan.run
    assert files_of(run, 0) == [run.tar(0), run.memory_log(0), run.manifest(0)]
    run.memory_log(0).unlink()
    assert files_of(run, 0) == [run.tar(0), run.manifest(0)]


def test_a_store_is_asked_as_the_record_says(plan: Plan, tmp_path: Path) -> None:
    run, there = plan.run, tmp_path / "there" / "shards"
    there.mkdir(parents=True)
    record = record_for(run, 0, str(tmp_path / "there"))
    assert ask_store(run, record).problem == f"the copy {there}/000000.tar is missing there"
    there.joinpath("000000.tar").write_bytes(run.tar(0).read_bytes())
    asked = ask_store(run, record, deep=True)
    assert (asked.problem, asked.how) == (None, f"{tmp_path / 'there'}, read back, by its sha256")
    away = ask_store(run, {**record, "to": "nope://a"})
    assert away.problem is None and "is not an address that fsspec knows" in str(away.unreached)


def test_leases_of_copiers_are_no_workers(plan: Plan) -> None:
    run, watch = plan.run, Watch(60.0)
    lease = Lease.take_named(lease_path(run, 1), "copier", watch)
    assert lease is not None and lease_path(run, "hub").name == "copy-hub"
    assert run.shard_leases() == [] and list(copiers(run, watch)) == [lease_path(run, 1)]
    sweep_leases(run)
    assert copiers(run, watch) == {}
