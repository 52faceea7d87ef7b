"""What launch=slurm would submit, in a dry run: the array, how it fits into its time, the script, what is refused."""

import pytest

from batchgen.config.schema import Config, JobConfig, LaunchConfig
from batchgen.evening.array import array_lines, work_of
from batchgen.evening.lines import as_json, as_text
from batchgen.evening.outlook import Outlook
from batchgen.machine import slurm
from batchgen.paths import RunDir
from tests.builders import RECORD, full_attempt, plan_run

TOOK = {"work_s": 7000.0, "start_s": 60.0}


def told(monkeypatch, tmp_path, took=TOOK, open_shards=40, **launch):
    found = slurm.Limits(1001, None, (slurm.Partition("gpu", is_default=True, default_time_s=3600.0),))
    monkeypatch.setattr(slurm, "limits", lambda: found)
    config = Config(job=JobConfig(name="mars"), launch=LaunchConfig(launcher="slurm", workers=8, **launch))
    return array_lines(RunDir(tmp_path / "run"), config, open_shards, took)


def test_it_says_what_would_be_submitted_and_how_often_each_element_runs(monkeypatch, tmp_path):
    lines, warnings, refused = told(monkeypatch, tmp_path)
    text = as_text(lines)
    assert "slurm      an array of 8 elements, and a job that checks the run after it" in text
    assert "3 rounds" in text
    assert "script     #!/bin/bash\n           #SBATCH --job-name=mars" in text
    assert (warnings, refused) == ([], None)
    assert '"array":"0-7"' in as_json(lines)


def test_what_would_be_refused_is_told_with_the_script(monkeypatch, tmp_path):
    lines, _, refused = told(monkeypatch, tmp_path, slurm={"partition": "nowhere"})
    assert "no partition nowhere" in str(refused)
    assert "#SBATCH --partition=nowhere" in as_text(lines)


def test_without_slurm_the_script_is_shown_and_what_is_not_known_is_said(monkeypatch, tmp_path):
    def away():
        raise slurm.SlurmMissingError("no sbatch")

    monkeypatch.setattr(slurm, "limits", away)
    config = Config(job=JobConfig(name="mars"), launch=LaunchConfig(launcher="slurm", slurm={"partiton": "x"}))
    lines, warnings, refused = array_lines(RunDir(tmp_path / "run"), config, 4, {})
    assert "an array of 1 element" in as_text(lines)
    assert [one for one in warnings if "no sbatch" in one] and [one for one in warnings if "did you mean" in one]
    assert refused is None


@pytest.mark.parametrize("open_shards", [0])
def test_nothing_is_left(monkeypatch, tmp_path, open_shards):
    lines, _, _ = told(monkeypatch, tmp_path, open_shards=open_shards)
    assert "no shard is left to make" in as_text(lines)


def test_a_local_run_has_no_such_lines(tmp_path):
    assert array_lines(RunDir(tmp_path), Config(), 4, {}) == ([], [], None)


def test_the_speed_of_gpus_is_that_of_the_shards_that_were_made(tmp_path):
    few = {"job__batch_size": 1, "output__batches_per_shard": 1, "launch__launcher": "slurm", "launch__workers": 2}
    plan = plan_run(tmp_path, ["a", "b", "c", "d", "e"], **few)
    outlook = Outlook.of_plan(plan, [])
    assert work_of(plan, outlook, [0, 1, 2, 3, 4]) is None
    assert full_attempt(plan).commit()
    seconds = RECORD["seconds"] / RECORD["images"]
    assert work_of(plan, outlook, [1, 2, 3, 4]) == (4 * seconds / 2, 0.0)
