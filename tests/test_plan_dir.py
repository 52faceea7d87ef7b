"""The names in the directory of a plan."""

from pathlib import Path

import pytest

from batchgen.paths import RunDir
from batchgen.plan_dir import PlanDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create_directories()
    return run


def test_the_names_of_a_plan_are_those_of_the_format(run: RunDir) -> None:
    plan = run.plan
    paths = (plan.config, plan.facts, plan.rejects, plan.owner, plan.shard(7))
    names = [path.relative_to(run.root).as_posix() for path in paths]
    assert names == [
        f"plan/{name}" for name in ("config.yaml", "run.json", "rejects.jsonl", "owner.json", "000007.jsonl")
    ]


def test_a_draft_has_a_name_of_its_own_and_is_no_plan(run: RunDir) -> None:
    draft = run.plan.new_draft()
    assert draft != run.plan.new_draft() and not draft.is_swept and draft.swept.is_swept
    for directory in (draft, draft.swept, PlanDir(run.root / "plan.mine")):
        directory.root.mkdir()
    assert sorted(found.root.name for found in run.drafts()) == [draft.root.name, draft.swept.root.name]
    assert run.plans() == []
