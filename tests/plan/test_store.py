"""The plan on disk: what is saved comes back, the second comer uses what is there, extensions follow on."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BrokenRunError, UserError
from batchgen.files import sha256_file
from batchgen.paths import RunDir
from batchgen.plan.inputs import Input
from batchgen.plan.store import Plan, Sources, load_plan, save_plan
from batchgen.plan_dir import PlanDir
from batchgen.types import Batch, PromptFile, Reject, Shard
from tests.builders import make_config, make_prompt

LOOKED_AT = [Input(PromptFile(Path("prompts.txt")), 4, "f" * 64)]
INPUTS = [one.entry for one in LOOKED_AT]


def make_shard(index: int, *batches: tuple[str, ...], **fields: Any) -> Shard:
    return Shard(
        index,
        tuple(Batch(place, tuple(make_prompt(key, **fields) for key in keys)) for place, keys in enumerate(batches)),
    )


def save(
    tmp_path: Path,
    shards: Iterable[Shard | Reject],
    name: str = "plan",
    kind: str = "run",
    first_shard: int = 0,
    run_id: str = "a" * 32,
) -> bool:
    run = RunDir(tmp_path / "run")
    sources = Sources(make_config(tmp_path), LOOKED_AT, {"model": "m"})
    return save_plan(run, PlanDir(run.root / name), kind, first_shard, run_id, sources, shards)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "run").glob("*"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two shards of three and one prompts, and a rejected row between them."""
    first = make_shard(0, ("a", "b"), ("c",), prompt="a f\u00fcchs\u2028 \n", extra={"id": [1, None], "\u00fc": 0.5})
    assert save(tmp_path, [first, Reject("prompts.txt", 3, "empty"), make_shard(1, ("d",))])
    return load_plan(RunDir(tmp_path / "run"))


def test_a_saved_plan_comes_back_as_it_was(plan: Plan, tmp_path: Path) -> None:
    first = make_shard(0, ("a", "b"), ("c",), prompt="a f\u00fcchs\u2028 \n", extra={"id": [1, None], "\u00fc": 0.5})
    assert [plan.shard(index)[0] for index in range(2)] == [first, make_shard(1, ("d",))]
    assert plan.config == make_config(tmp_path)
    assert (plan.run_id, plan.recipe, plan.inputs) == ("a" * 32, {"model": "m"}, INPUTS)
    assert (plan.sizes, plan.images, plan.segments[0].rejects) == ([(2, 3), (1, 1)], 4, 1)
    assert [prompt.key for prompt in plan.prompts()] == ["a", "b", "c", "d"]


def test_the_fingerprint_of_a_shard_is_that_of_its_file(plan: Plan) -> None:
    path = plan.run.plan.shard(0)
    assert plan.shard(0)[1] == sha256_file(path)


@pytest.mark.parametrize("name", ["000000.jsonl", "config.yaml", "run.json"])
def test_a_changed_plan_is_refused_before_anything_is_made_by_it(plan: Plan, name: str) -> None:
    path = plan.run.plan.root / name
    text = path.read_text()
    path.write_text(text.replace("7", "8", 1))
    assert path.read_text() != text
    with pytest.raises(BrokenRunError, match=rf"{name.split('.')[0]}.*(sha256 differs|is damaged)"):
        load_plan(plan.run).shard(0)


def test_rejected_rows_are_kept_with_their_reasons(plan: Plan) -> None:
    lines = plan.run.plan.rejects.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"file": "prompts.txt", "line": 3, "reason": "empty"}]


def test_whoever_comes_second_uses_what_is_there(tmp_path: Path) -> None:
    assert save(tmp_path, [make_shard(0, ("first",))], run_id="1" * 32)
    assert not save(tmp_path, [make_shard(0, ("second",))], run_id="2" * 32)
    plan = load_plan(RunDir(tmp_path / "run"))
    assert (plan.run_id, plan.shard(0)[0].keys) == ("1" * 32, ["first"])
    assert names(tmp_path) == ["plan"]


def test_no_plan_is_seen_before_it_is_whole(tmp_path: Path) -> None:
    def shards() -> Iterator[Shard]:
        yield make_shard(0, ("a",))
        with pytest.raises(UserError, match="is not a run"):
            load_plan(RunDir(tmp_path / "run"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, shards())
    assert names(tmp_path) == []


def test_extensions_and_retries_follow_on(plan: Plan, tmp_path: Path) -> None:
    assert save(tmp_path, [make_shard(2, ("e", "f"))], name="plan-001", kind="extend", first_shard=2, run_id="b")
    assert save(tmp_path, [make_shard(3, ("a",))], name="plan-002", kind="retry", first_shard=3, run_id="c")
    longer = load_plan(plan.run)
    assert [longer.shard(index)[0].keys for index in range(4)] == [["a", "b", "c"], ["d"], ["e", "f"], ["a"]]
    assert longer.sizes == [(2, 3), (1, 1), (1, 2), (1, 1)]
    assert longer.images == 6  # an image that is tried again is no other one
    assert [prompt.key for prompt in longer.prompts()] == ["a", "b", "c", "d", "e", "f"]
    assert longer.inputs == INPUTS * 2
    assert longer.run_id == plan.run_id


def test_the_tenth_extension_comes_after_the_ninth(plan: Plan, tmp_path: Path) -> None:
    for number in (2, 1000, 10):
        save(tmp_path, [make_shard(number, ("x",))], name=f"plan-{number:03d}", kind="extend", first_shard=number)
    assert [segment.first_shard for segment in load_plan(plan.run).segments] == [0, 2, 10, 1000]


def test_a_draft_that_a_crash_left_is_no_plan(plan: Plan) -> None:
    (plan.run.root / "plan.0123").mkdir()
    assert len(load_plan(plan.run).segments) == 1


def newer_format(plan: Path) -> None:
    facts = json.loads((plan / "run.json").read_text())
    (plan / "run.json").write_text(json.dumps(facts | {"format": 99}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no run.json": lambda plan: (plan / "run.json").unlink(),
    "run.json cut": lambda plan: (plan / "run.json").write_text('{"format": 1'),
    "run.json of little": lambda plan: (plan / "run.json").write_text('{"format": 1}'),
    "newer format": newer_format,
    "no config": lambda plan: (plan / "config.yaml").unlink(),
    "config no YAML": lambda plan: (plan / "config.yaml").write_text("{"),
    "config of unknown keys": lambda plan: (plan / "config.yaml").write_text("stepz: 3"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_told(plan: Plan, damage: str) -> None:
    DAMAGES[damage](plan.run.plan.root)
    with pytest.raises(BrokenRunError, match=str(plan.run.root)):
        load_plan(plan.run)


@pytest.mark.parametrize("content", [None, b"{", b'{"batch": 0}\n', b"[]\n"])
def test_a_damaged_shard_of_the_plan_is_named(plan: Plan, content: bytes | None) -> None:
    path = plan.run.plan.shard(1)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(BrokenRunError, match="000001.jsonl of the plan"):
        plan.shard(1)
