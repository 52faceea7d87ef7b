"""What is free to change on a resume reaches every worker, which loads nothing but the run directory."""

import shutil
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchgen.config.schema import Config, flatten
from batchgen.errors import UserError
from batchgen.models.find import locate
from batchgen.paths import RunDir
from batchgen.places import models_dir
from batchgen.plan.free import save_free
from batchgen.plan.recipe import is_free
from batchgen.plan.store import check_plan, load_plan
from batchgen.prepare import prepare
from tests.builders import make_config, plan_run
from tests.commands import front, write_prompts
from tests.plan.test_recipe import FREE

# What null leaves to the planner is no setting: it stays as it was planned.
SETTINGS = [*(FREE.keys() - {"output__batches_per_shard"}), "memory__max_vram", "memory__assume_vram"]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_free_setting_of_a_resume_is_what_workers_load(tmp_path: Path, name: str) -> None:
    plan = plan_run(tmp_path)
    written = plan.run.plan.config.read_bytes()
    wanted: Any = FREE.get(name, "6GiB")
    save_free(plan.run, make_config(tmp_path, **{name: wanted}))
    loaded = load_plan(plan.run)
    assert reduce(getattr, name.split("__"), loaded.config) == wanted
    assert loaded.planned == plan.planned
    assert plan.run.plan.config.read_bytes() == written
    check_plan(loaded)


def test_every_free_key_is_stated_and_no_other(tmp_path: Path) -> None:
    plan = plan_run(tmp_path)
    stated = yaml.safe_load(plan.run.free.read_bytes())
    assert stated.keys() == {key for key in flatten(asdict(Config())) if is_free(key)}
    plan.run.free.write_text(yaml.safe_dump(stated | {"job.seed": 5, "launch.of_another_version": 1}))
    assert load_plan(plan.run).config == plan.config


def test_a_command_takes_back_what_an_earlier_one_set(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, memory__max_vram="6GiB")
    assert plan.config.memory.max_vram == "6GiB"
    assert prepare(plan.run, make_config(tmp_path)).config.memory.max_vram is None


def test_a_model_that_moved_is_found_at_its_new_place(tmp_path: Path) -> None:
    shutil.copytree(models_dir() / "tiny", tmp_path / "old")
    plan = plan_run(tmp_path, model__path=str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    prepare(plan.run, make_config(tmp_path, model__path=str(tmp_path / "new")))
    assert locate(load_plan(plan.run).config.model).folder == tmp_path / "new"


def test_a_file_that_no_command_wrote_is_named(tmp_path: Path) -> None:
    plan = plan_run(tmp_path)
    plan.run.free.write_text("{")
    with pytest.raises(UserError, match="free.yaml cannot be read: remove it"):
        load_plan(plan.run)
    plan.run.free.unlink()
    assert load_plan(plan.run).config == plan.planned


def test_a_worker_alone_goes_by_the_last_command(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 9)
    front(tmp_path / "run", prompts)
    front(tmp_path / "run", prompts, "launch.lease_timeout_s=7", "memory.max_vram=3GiB")
    config = load_plan(RunDir(tmp_path / "run")).config
    assert (config.launch.lease_timeout_s, config.memory.max_vram) == (7, "3GiB")
