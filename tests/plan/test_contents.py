"""What a plan holds besides its facts: shards, rejects, and copies of fetched prompt files."""

import json
from pathlib import Path

from batchgen.plan.contents import copies_in, write_prompts, write_shards
from batchgen.plan.inputs import Input
from batchgen.plan.records import parse_shard
from batchgen.plan_dir import PlanDir
from batchgen.types import Batch, Lora, PromptFile, Reject, Shard
from tests.builders import make_prompt


def test_shards_and_rejects_come_back(tmp_path: Path) -> None:
    shard = Shard(3, (Batch(0, (make_prompt("a"), make_prompt("b"))), Batch(1, (make_prompt("c"),))))
    draft = PlanDir(tmp_path)
    assert write_shards(draft, [Reject("p.txt", 7, "empty prompt"), shard]) == ([(2, 3)], 1, [])
    assert parse_shard(3, draft.shard(3).read_bytes()) == shard
    assert json.loads(draft.rejects.read_text()) == {"file": "p.txt", "line": 7, "reason": "empty prompt"}


def test_the_files_of_lora_are_listed_once(tmp_path: Path) -> None:
    a, b = Lora("/a.safetensors", 1.0, "a1"), Lora("/b.safetensors", 0.5, "b2")
    batches = (
        Batch(0, (make_prompt("a", lora=(a, b)),)), Batch(1, (make_prompt("b", lora=(a._replace(weight=2.0),)),)),
        Batch(2, (make_prompt("c"),)),
    )  # fmt: skip
    written = write_shards(PlanDir(tmp_path), [Shard(0, batches)])
    assert written.loras == [("/a.safetensors", "a1"), ("/b.safetensors", "b2")]


def test_only_fetched_files_are_copied_each_under_a_name_of_its_own(tmp_path: Path) -> None:
    inputs = [Input(PromptFile(tmp_path / "local.txt"), 1, "f")]
    for number, name in enumerate(("p.jsonl.gz", "p.jsonl.gz", "p-2.jsonl.gz", "q.txt")):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_text(f"{number}\n")
        inputs.append(Input(PromptFile(path, f"s3://b/{number}/{name}"), 2, "f", continues=number))
    (tmp_path / "draft").mkdir()
    entries = write_prompts(PlanDir(tmp_path / "draft"), PlanDir(tmp_path / "run" / "plan-001"), inputs)
    assert entries[0] == {"file": str(tmp_path / "local.txt"), "bytes": 1, "sha256": "f"}
    assert entries[1] == inputs[1].entry | {"copy": "plan-001/prompts/p.jsonl.gz"}
    copies = copies_in(tmp_path / "run", entries)
    assert [copy.relative_to(tmp_path / "run").as_posix() for copy in copies.values()] == [
        "plan-001/prompts/p.jsonl.gz",
        "plan-001/prompts/p-2.jsonl.gz",
        "plan-001/prompts/p-2-2.jsonl.gz",
        "plan-001/prompts/q.txt",
    ]
    kept = [tmp_path / "draft" / "prompts" / path.name for path in copies.values()]
    assert [path.read_text() for path in kept] == ["0\n", "1\n", "2\n", "3\n"]


def test_a_plan_without_fetched_files_has_no_folder_for_them(tmp_path: Path) -> None:
    write_prompts(PlanDir(tmp_path), PlanDir(tmp_path), [Input(PromptFile(tmp_path / "local.txt"), 1, "f")])
    assert list(tmp_path.iterdir()) == []


def test_copies_are_looked_for_in_the_run_only(tmp_path: Path) -> None:
    assert (
        copies_in(tmp_path, [{"file": "s3://b/p", "copy": "../q"}, {"file": "s3://b/q", "copy": "/q"}, {"file": "p"}])
        == {}
    )
