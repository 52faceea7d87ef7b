"""run.json: its checksum is of all its other keys, and a shard's size is a list in JSON."""

from batchgen.files import to_json
from batchgen.plan.records import RunFacts, ShardSize, checksum

FACTS: RunFacts = {"format": 1, "run_id": "a" * 32, "shards": [ShardSize(2, 64)]}


def test_a_size_is_written_as_a_list() -> None:
    assert to_json(FACTS["shards"]) == "[[2,64]]"


def test_the_checksum_does_not_count_itself_and_changes_with_every_other_key() -> None:
    digest = checksum(FACTS)
    assert checksum({**FACTS, "checksum": digest}) == digest
    assert checksum({**FACTS, "rejects": 1}) != digest
    assert checksum({**FACTS, "shards": [ShardSize(2, 63)]}) != digest
