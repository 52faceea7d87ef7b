"""A command hashes each prompt file once and fingerprints its model once, whatever it does."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen import files
from batchgen import run as run_module
from batchgen.config.schema import Config
from batchgen.launch import local
from batchgen.models import fingerprint
from batchgen.prepare import prepare
from tests.builders import finish_run, make_config, plan_run, write_rows


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each prompt file was hashed, by its name, and how often the model's files were read."""
    counts: Counter[str] = Counter()
    hash_file, digest = files.sha256_file, fingerprint._digest

    def counted_hash(path: Path) -> str:
        counts[path.name] += 1
        return hash_file(path)

    def counted_digest(files: Any) -> str:
        counts["model"] += 1
        return digest(files)

    def launch(crew: local.Crew, *_: Any) -> int:
        finish_run(crew.plan)
        return 0

    monkeypatch.setattr("batchgen.plan.inputs.sha256_file", counted_hash)
    monkeypatch.setattr(fingerprint, "_digest", counted_digest)
    monkeypatch.setattr(run_module, "find_gpus", list)
    monkeypatch.setattr(local, "launch", launch)
    yield counts


def two_files(tmp_path: Path, **overrides: Any) -> Config:
    """The small job with a second prompt file."""
    config = make_config(tmp_path, **overrides)
    config.job.prompts = [config.job.prompts, str(write_rows(tmp_path / "more.jsonl", ["a hen", "an owl"]))]
    return config


ONCE = {"prompts.jsonl": 1, "model": 1}


def test_a_new_run(tmp_path: Path, looks: Counter[str]) -> None:
    config = make_config(tmp_path)
    assert run_module.run(config) == 0
    assert looks == ONCE
    looks.clear()
    assert run_module.run(config) == 0, "and the run that is already done"
    assert looks == ONCE


def test_a_resume(tmp_path: Path, looks: Counter[str]) -> None:
    plan = plan_run(tmp_path)
    (plan.run.work / "begun").touch()
    looks.clear()
    assert prepare(plan.run, make_config(tmp_path)).run_id == plan.run_id
    assert looks == ONCE


def test_a_resume_of_a_plan_that_nothing_was_begun_on(tmp_path: Path, looks: Counter[str]) -> None:
    plan = plan_run(tmp_path)
    looks.clear()
    assert prepare(plan.run, make_config(tmp_path)).run_id == plan.run_id
    assert looks == ONCE


def test_a_plan_that_gives_way(tmp_path: Path, looks: Counter[str]) -> None:
    plan = plan_run(tmp_path)
    looks.clear()
    assert prepare(plan.run, make_config(tmp_path, job__steps=9)).run_id != plan.run_id
    assert looks == ONCE


def test_an_extension(tmp_path: Path, looks: Counter[str]) -> None:
    plan = plan_run(tmp_path)
    looks.clear()
    assert len(prepare(plan.run, two_files(tmp_path, extend=True)).segments) == 2
    assert looks == ONCE | {"more.jsonl": 1}


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("assumed", [None, "8GiB"])
def test_a_dry_run(tmp_path: Path, looks: Counter[str], planned: bool, assumed: str | None) -> None:
    if planned:
        plan_run(tmp_path)
        looks.clear()
    config = two_files(tmp_path, dry_run=True, memory__assume_vram=assumed)
    assert run_module.run(config) == 0
    every = ONCE | {"more.jsonl": 1}
    assert all(looks[name] <= count for name, count in every.items()) and looks.keys() <= every.keys()
    assert looks["model"] == 1
