"""launch=slurm on a fake cluster: one array, what lacks is added, and what fails leaves nothing behind."""

import json
import os

import pytest

from batchgen.launch.submit import cancel_submitted, told_of_queue
from batchgen.machine.slurm import Element
from batchgen.paths import RunDir
from tests.commands import front, write_prompts
from tests.launch.fake_slurm import install


@pytest.fixture
def site(tmp_path, monkeypatch):
    binaries, queue = install(tmp_path)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setenv("BATCHGEN_SITE", "")
    return queue


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 160)  # 20 shards


def submit(tmp_path, prompts, *more, code=0):
    done = front(tmp_path / "run", prompts, "launch=slurm", "launch.workers=8", *more)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_a_queue_is_told_in_a_few_words():
    first, held = Element("12_0", "RUNNING", node="node1"), Element("12_1", "PENDING", "JobHeldUser")
    assert told_of_queue([first, held]) == "1 element runs, 1 waits (JobHeldUser)"


def test_one_array_and_a_check_are_submitted_noted_and_released(tmp_path, prompts, site):
    told = submit(tmp_path, prompts, "launch.slurm.partition=gpu", "launch.slurm.gpus_per_task=1")
    jobs = site.jobs()
    assert list(jobs) == ["100", "101"]
    assert (jobs["100"]["array"], jobs["100"]["reason"]) == ("0-7", "Resources")
    assert jobs["101"]["dependency"] == "afterany:100"
    run = RunDir(tmp_path / "run")
    note = json.loads((run.slurm / "001.json").read_text())
    assert {**note, "submitted_at": 0} == {"job": "100", "elements": 8, "collector": "101", "submitted_at": 0}
    assert (run.slurm / "job.sh").read_text() == jobs["100"]["script"]
    assert "#SBATCH --gpus-per-task=1" in jobs["100"]["script"] and "gres" not in jobs["100"]["script"]
    for part in ("array 100 was submitted: 8 elements (--array=0-7)", "job 101 checks the run", "status", "cancel"):
        assert part in told
    assert not [call for call in site.read()["calls"] if call[0] == "sacct"]


def test_the_same_command_submits_what_lacks(tmp_path, prompts, site):
    submit(tmp_path, prompts)
    enough = "8 elements of array 100 live, which is enough: 0 elements run, 8 wait (Resources)"
    assert enough in submit(tmp_path, prompts)
    site.set_states("100", ["RUNNING"] * 4 + ["COMPLETED", "PREEMPTED", "NODE_FAIL", "PENDING"])
    told = submit(tmp_path, prompts)
    assert "5 elements of 8 live; 3 elements are added" in told
    assert site.jobs()["102"]["array"] == "0-2"
    assert site.jobs()["103"]["dependency"] == "afterany:100:102"
    site.set_states("100", ["COMPLETED"] * 8)
    site.set_states("102", ["CANCELLED"] * 3)
    assert "array 104 was submitted: 8 elements" in submit(tmp_path, prompts)
    found = sorted(path.name for path in RunDir(tmp_path / "run").slurm.glob("0*"))
    assert found == ["001.json", "002.json", "003.json"]


def test_a_changed_recipe_is_refused_as_on_any_resume(tmp_path, prompts, site):
    submit(tmp_path, prompts)
    assert "job.steps" in submit(tmp_path, prompts, "job.steps=9", code=2)
    assert len(site.jobs()) == 2


def test_of_two_at_once_the_later_one_cancels_its_own(tmp_path, prompts, site):
    import threading

    said = []
    both = [threading.Thread(target=lambda: said.append(submit(tmp_path, prompts))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    (note,) = RunDir(tmp_path / "run").slurm.glob("0*.json")
    winner = json.loads(note.read_text())["job"]
    assert all(winner in one for one in said), said


def test_an_array_whose_command_was_killed_before_it_released_it_is_released(tmp_path, prompts, site):
    submit(tmp_path, prompts)
    state = site.read()
    state["jobs"]["100"]["reason"] = "JobHeldUser"
    site.write(state)
    assert "array 100 was held and is released" in submit(tmp_path, prompts)
    assert site.jobs()["100"]["reason"] == "Resources"


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"sbatch": (1, "sbatch: error: Batch job submission failed: Invalid account or account/partition combination "
                        "specified")}, 2, "Invalid account"),
        ({"sbatch": (1, "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job "
                        "violates accounting/QOS policy (job submit limit, user's size and/or time limits)")}, 1,
         "QOSMaxSubmitJobPerUserLimit"),
        ({"sbatch": (1, "sbatch: unrecognized option '--partiton=gpu'\nTry \"sbatch --help\" for more information")}, 2,
         "launch.slurm.partiton: sbatch has no such option; did you mean partition?"),
        ({"squeue": (1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
          "scontrol": (1, "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)")}, 1,
         "SLURM does not answer"),
    ],
)  # fmt: skip
def test_what_fails_is_one_line_and_leaves_nothing(tmp_path, prompts, site, answers, code, said):
    site.says(**answers)
    told = submit(tmp_path, prompts, "launch.slurm.partiton=gpu", code=code)
    assert said in told
    assert len(told.splitlines()) == 1, told
    assert not (tmp_path / "run" / "slurm").exists()
    assert site.jobs() == {}


def test_options_of_slurm_without_launch_slurm_begin_nothing_here(tmp_path, prompts, site):
    done = front(tmp_path / "run", prompts, "launch.slurm.partition=gpu")
    assert done.returncode == 2
    assert "launch.slurm.partition: an option of SLURM needs launch=slurm" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_whole_submits_nothing(tmp_path, prompts, site):
    assert front(tmp_path / "run", prompts, "launch.workers=2").returncode == 0
    assert "is already done" in submit(tmp_path, prompts)
    assert site.jobs() == {}


def test_a_dry_run_shows_the_script_and_changes_nothing(tmp_path, prompts, site):
    done = front(tmp_path / "run", prompts, "launch=slurm", "launch.workers=8", "launch.at_once=2", "dry_run=true")
    assert "slurm      an array of 8 elements, 2 of them at once" in done.stdout
    assert "script     #!/bin/bash\n           #SBATCH --job-name=" in done.stdout
    found = json.loads(front(tmp_path / "run", prompts, "launch=slurm", "launch.workers=8", "dry_run=json").stdout)
    assert found["slurm"]["array"] == "0-7"
    assert "batchgen.join" in found["slurm"]["script"]
    assert site.jobs() == {}
    assert not (tmp_path / "run").exists()


def test_cancel_takes_out_the_check_where_no_element_is_left(tmp_path, prompts, site):
    submit(tmp_path, prompts)
    site.set_states("100", ["PENDING"] * 8)
    assert len(cancel_submitted(RunDir(tmp_path / "run"), lambda line: None)) == 8
    assert site.jobs()["101"]["states"] == ["CANCELLED"]


def test_cancel_takes_out_what_waits_and_leaves_what_runs(tmp_path, prompts, site):
    submit(tmp_path, prompts)
    site.set_states("100", ["RUNNING"] * 2 + ["PENDING"] * 6)
    said: list[str] = []
    assert len(cancel_submitted(RunDir(tmp_path / "run"), said.append)) == 6
    assert site.jobs()["100"]["states"] == ["RUNNING"] * 2 + ["CANCELLED"] * 6
    left = "2 elements run, 0 wait: they end after what is under way"
    assert said == ["6 elements of array 100 were cancelled", left]
