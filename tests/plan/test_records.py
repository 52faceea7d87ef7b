"""run.json: its checksum is of all its other keys. A shard comes back from its lines as it was."""

from batchgen.files import to_json
from batchgen.plan.records import RunFacts, ShardSize, checksum, parse_shard, shard_lines
from batchgen.types import Batch, Lora, Shard
from tests.builders import make_prompt

FACTS: RunFacts = {"format": 1, "run_id": "a" * 32, "shards": [ShardSize(2, 64)]}


def test_a_size_is_written_as_a_list() -> None:
    assert to_json(FACTS["shards"]) == "[[2,64]]"


def test_the_checksum_does_not_count_itself_and_changes_with_every_other_key() -> None:
    digest = checksum(FACTS)
    assert checksum({**FACTS, "checksum": digest}) == digest
    assert checksum({**FACTS, "rejects": 1}) != digest
    assert checksum({**FACTS, "shards": [ShardSize(2, 63)]}) != digest


def test_a_shard_comes_back_from_its_lines() -> None:
    first = (make_prompt("a", extra={"id": [1, None, {"deep": "\u00fc"}]}), make_prompt("b", seed=2**32 - 1))
    shard = Shard(7, (Batch(0, first), Batch(1, (make_prompt("c", guidance=0.0),))))
    data = shard_lines(shard)
    assert data.count(b"\n") == 3
    assert parse_shard(7, data) == shard


def test_where_guidance_begins_is_written_only_where_it_is_not_the_usual() -> None:
    usual, other = make_prompt("a", guidance=0.5), make_prompt("b", guidance=0.5, guided_above=0.0)
    lines = shard_lines(Shard(0, (Batch(0, (usual, other)),)))
    assert [b"guided_above" in line for line in lines.splitlines()] == [False, True]
    [read] = parse_shard(0, lines).batches
    assert [prompt.is_guided for prompt in read.prompts] == [False, True]


def test_lora_is_written_only_where_there_is_one_and_comes_back() -> None:
    loras = (Lora("/a.safetensors", 0.8, "a1"), Lora("/b.safetensors", 1.0, "b2"))
    shard = Shard(0, (Batch(0, (make_prompt("a"),)), Batch(1, (make_prompt("b", lora=loras),))))
    lines = shard_lines(shard)
    assert [b'"lora"' in line for line in lines.splitlines()] == [False, True]
    assert b'"lora":[["/a.safetensors",0.8,"a1"],["/b.safetensors",1.0,"b2"]]' in lines
    assert parse_shard(0, lines) == shard
    assert {parse_shard(0, lines).batches[1].prompts[0].group}  # it can be looked up
