"""A directory that is no run: the run that is meant is named."""

from pathlib import Path

import pytest

from batchgen.errors import UserError
from batchgen.paths import RunDir
from batchgen.plan.nearby import no_run
from batchgen.plan.store import load_plan


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the runs mars, moon, sun and venus in outputs/."""
    monkeypatch.chdir(tmp_path)
    for name in ("mars", "moon", "sun", "venus"):
        run = RunDir(Path("outputs", name))
        run.plan.root.mkdir(parents=True)
        run.plan.facts.write_text("{}")
        run.shards.mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "outputs",
            "it has no plan/. Runs in it: outputs/mars, outputs/moon, outputs/sun and 1 more: name one of them",
        ),
        ("outputs/mars/shards", "it has no plan/. It is a part of the run outputs/mars: name that"),
        ("outputs/mars/plan", "it has no plan/. It is a part of the run outputs/mars: name that"),
        (
            "outputs/mars/shards/000000.tar",
            "there is no such directory. It is a part of the run outputs/mars: name that",
        ),
        ("mars", "there is no such directory. Did you mean outputs/mars?"),
        ("outputs/vens", "there is no such directory. Did you mean outputs/venus?"),
        ("outputs/mars/..", "it has no plan/. Runs in it: outputs/mars/../mars, "),
        (".", "it has no plan/. Name the directory that holds one"),
        ("elsewhere", "there is no such directory. Name the directory that holds one"),
    ],
)
def test_the_run_that_is_meant_is_named(here: Path, named: str, said: str) -> None:
    assert no_run(RunDir(Path(named))).startswith(f"{Path(named)} is not a run: {said}")


def test_a_part_of_the_run_that_one_stands_in(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "outputs" / "mars")
    assert f"a part of the run {here}/outputs/mars: name that" in no_run(RunDir(Path("shards")))


def test_whoever_loads_a_plan_is_told(here: Path) -> None:
    with pytest.raises(UserError, match="Did you mean outputs/mars"):
        load_plan(RunDir(Path("mars")))
