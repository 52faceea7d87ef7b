"""A command goes on with what it stood for when its run was planned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from batchgen.errors import ResumeError
from batchgen.files import sha256_bytes, to_json
from batchgen.models.editions import keep_edition
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.prepare import prepare
from tests.builders import make_config
from tests.commands import front, verify, write_prompts


def test_a_run_of_an_earlier_bundled_model_goes_on_with_it_and_a_new_one_takes_the_newest(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = RunDir(Path(config.run_dir))
    newest = replace(config, model=replace(config.model, path="tiny_2"))
    assert keep_edition(run, newest) == newest
    planned = prepare(run, config)
    assert planned.config.model.path == "tiny"
    kept = prepare(run, keep_edition(run, newest))
    assert (kept.run_id, kept.config.model.path, kept.recipe) == (planned.run_id, "tiny", planned.recipe)


def test_the_command_resumes_a_run_of_an_earlier_bundled_model(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.txt", 4)
    quick = ("job.steps=1", "output.batches_per_shard=1", "job.batch_size=2")
    assert front(tmp_path / "run", prompts, *quick, "model.path=tiny", "job.limit=2").returncode == 0
    done = front(tmp_path / "run", prompts, *quick)
    assert done.returncode == 0, done.stderr
    assert load_plan(RunDir(tmp_path / "run")).config.model.path == "tiny"
    assert verify(tmp_path / "run").returncode == 0


def forget_scheduler(run: RunDir) -> None:
    """Turn a plan into one of before models had a scheduler."""

    values = yaml.safe_load(run.plan.config.read_bytes())
    del values["model"]["scheduler"], values["model"]["timestep_spacing"]
    data = yaml.safe_dump(values, sort_keys=False).encode()
    run.plan.config.write_bytes(data)
    facts = json.loads(run.plan.facts.read_bytes())
    facts["sha256"][run.plan.config.name] = sha256_bytes(data)
    facts.pop("checksum")
    facts["checksum"] = sha256_bytes(to_json(facts).encode())
    run.plan.facts.write_text(json.dumps(facts, indent=1) + "\n")


def test_a_run_from_before_models_had_schedulers_keeps_the_one_that_its_command_meant(tmp_path: Path) -> None:
    config = make_config(tmp_path, job__scheduler="ddim")  # as job=mars_batch had it for every model
    run = RunDir(Path(config.run_dir))
    planned = prepare(run, config)
    run.work.mkdir()
    (run.work / "something").touch()  # work was begun, so that the plan does not give way
    today = make_config(tmp_path, job__scheduler="model", model__scheduler="model")
    with pytest.raises(ResumeError, match='job.scheduler: "ddim" -> "model"'):
        prepare(run, keep_edition(run, today))
    forget_scheduler(run)
    assert prepare(run, keep_edition(run, today)).run_id == planned.run_id
    named = make_config(tmp_path, job__scheduler="euler", model__scheduler="model")
    with pytest.raises(ResumeError, match='job.scheduler: "ddim" -> "euler"'):
        prepare(run, keep_edition(run, named))
