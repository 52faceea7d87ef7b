"""The files that close a data set: when they lack a copy, and whose card is there."""

import os
from pathlib import Path

import pytest

from batchgen.plan.store import Plan
from batchgen.shards.closing import is_a_persons, to_close
from batchgen.shards.copies import keep_record, new_record
from batchgen.stores.bucket import Bucket, Digests
from tests.builders import finish_run, full_attempt, plan_run

ALL = {"index.json", "samples.parquet", "README.md"}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_run(tmp_path, ["a fox"])
    plan.config.output.copy_to = str(tmp_path / "there")
    full_attempt(plan).commit()
    for path in (plan.run.samples_table, plan.run.card):
        path.write_text("one")
    return plan


def copy(plan: Plan, store: Bucket, path: Path, name: str) -> None:
    digests = Digests.of(path)
    checked = store.put(path, name, digests)
    shard = None if path.parent == plan.run.root else 0
    record = new_record(
        run_id=plan.run_id, shard=shard, attempt="", bytes=digests.bytes, sha256=digests.sha256, to=store.address,
        url=store.url(name), checked=checked.how, store_checksum=checked.checksum, keeps_local=True,
    )  # fmt: skip
    keep_record(plan.run, record, name)


def test_they_come_after_all_shards_and_again_when_they_change(plan: Plan) -> None:
    store = Bucket(str(plan.config.output.copy_to))
    assert to_close(plan, store.address) == set()
    finish_run(plan)
    assert to_close(plan, store.address) == set(), "a shard lacks its copy"
    copy(plan, store, plan.run.tar(0), "shards/000000.tar")
    assert to_close(plan, store.address) == ALL
    for name in ALL:
        copy(plan, store, plan.run.root / name, name)
    assert to_close(plan, store.address) == set() and to_close(plan, "s3://elsewhere") == ALL
    plan.run.samples_table.write_text("two")
    assert to_close(plan, store.address) == {"samples.parquet"}
    plan.run.samples_table.unlink()
    os.symlink(plan.run.card, plan.run.samples_table)
    assert to_close(plan, store.address) == set(), "what is no plain file is not copied"


def test_a_card_that_this_run_did_not_copy_is_a_persons(plan: Plan) -> None:
    store, card = Bucket(str(plan.config.output.copy_to)), plan.run.card
    assert not is_a_persons(plan.run, store, "README.md"), "there is none"
    copy(plan, store, card, "README.md")
    assert not is_a_persons(plan.run, store, "README.md")
    there = Path(store.address) / "README.md"
    there.write_text("ONE")
    assert is_a_persons(plan.run, store, "README.md"), "it was edited there"
    assert not is_a_persons(plan.run, store, "samples.parquet")
    there.write_text("one")
    (plan.run.copies / "README.md.json").unlink()
    assert is_a_persons(plan.run, store, "README.md")
    there.unlink()
    assert not is_a_persons(plan.run, store, "README.md")
