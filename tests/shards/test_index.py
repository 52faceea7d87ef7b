"""index.json: it states what the manifests prove, and one that states anything else is not current."""

import json
from pathlib import Path

import pytest

from batchgen.files import sha256_file
from batchgen.plan.store import Plan
from batchgen.shards.index import index_of, is_current, read_index, write_index
from tests.builders import finish_run, plan_run

PROMPTS = [f"fox {number}" for number in range(6)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A finished run of three shards, the first with a failed image."""
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan, [plan.shard(0)[0].keys[0]])
    return plan


def test_the_index_lists_every_shard_as_it_is(plan: Plan) -> None:
    index = index_of(plan)
    assert (index["run_id"], index["samples"]) == (plan.run_id, 5)
    assert [entry["file"] for entry in index["shards"]] == [f"shards/00000{shard}.tar" for shard in range(3)]
    assert [(entry["samples"], entry["failed"]) for entry in index["shards"]] == [(1, 1), (2, 0), (2, 0)]
    for shard, entry in enumerate(index["shards"]):
        assert entry["bytes"] == plan.run.tar(shard).stat().st_size
        assert entry["sha256"] == sha256_file(plan.run.tar(shard))


def test_an_index_that_was_written_is_current_until_it_is_changed(plan: Plan) -> None:
    write_index(plan)
    assert is_current(plan) and read_index(plan.run) == index_of(plan)
    plan.run.index.write_text(json.dumps(index_of(plan) | {"samples": 6}))
    assert not is_current(plan)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "run_id": "a", "shards": [{}]}'])
def test_an_index_that_cannot_be_read_is_none(plan: Plan, content: str) -> None:
    plan.run.index.write_text(content)
    assert read_index(plan.run) is None
