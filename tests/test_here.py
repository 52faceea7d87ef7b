"""The same command started many times at once, for real: torchrun and accelerate on the CPU, and srun's variables."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.commands import (
    FAKE,
    REAL,
    ROOT,
    SMALL,
    front,
    left_of,
    memory_log,
    run,
    samples,
    start,
    verify,
    wait_for,
    workers_that_began,
    write_prompts,
)  # fmt: skip

BIN = Path(sys.executable).parent
# accelerate takes a machine without GPUs for one process unless it is told otherwise.
LAUNCHERS = {
    "torchrun": [str(BIN / "torchrun"), "--nproc-per-node", "4"],
    "accelerate": [str(BIN / "accelerate"), "launch", "--multi_gpu", "--num_processes", "4"],
}
by_each_launcher = pytest.mark.parametrize("launcher", LAUNCHERS)


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 40)


def together(launcher, run_dir, prompts, *overrides, **environ):
    """The front door, started four times at once."""
    arguments = (*FAKE[1:], *SMALL, f"run_dir={run_dir}", f"job.prompts={prompts}", *overrides)
    return run(LAUNCHERS[launcher], *arguments, **environ)


def said_by_batchgen(done):
    return [line for line in done.stderr.splitlines() if line.startswith("batchgen: ")]


@by_each_launcher
def test_four_ranks_plan_once_and_share_the_work(tmp_path, prompts, launcher):
    done = together(launcher, tmp_path / "run", prompts, FAKE_STEP_S="0.2")
    assert done.returncode == 0, done.stderr
    assert [line for line in said_by_batchgen(done) if "images/s" not in line] == [
        "batchgen: 4 workers load the model; 0 of 40 images are there, and progress follows",
        f"batchgen: {tmp_path}/run is done: 40 images in 5 shards, 0.1 MiB",
        f'batchgen: read them with load_dataset("webdataset", data_files="{tmp_path}/run/shards/*.tar"), or with '
        "webdataset",
    ]
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout
    assert {int(one["worker"].split("-")[-2]) for one in memory_log(tmp_path / "run")} == {0, 1, 2, 3}
    assert not [*(tmp_path / "run").glob("plan*.*"), *(tmp_path / "run").glob("plan-*")]
    front(tmp_path / "whole", prompts, "launch.workers=4")
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["job.steps=many"], "job.steps=many: it must be a whole number"),
        (["job.prompts=missing.txt"], "no prompt file missing.txt"),
        (["launch=slurm"], "launch=slurm submits a job by one command: start it once, without srun"),
    ],
    ids=["configuration", "planning", "slurm"],
)
def test_a_refusal_ends_all_and_is_said_once(tmp_path, prompts, overrides, words):
    refused = together("torchrun", tmp_path / "run", prompts, *overrides)
    said = said_by_batchgen(refused)
    assert len(said) == 1 and words in said[0], refused.stderr
    assert refused.returncode != 0 and "exitcode  : 2 " in refused.stderr
    assert not (tmp_path / "run" / "plan").exists()
    assert front(tmp_path / "run", prompts).returncode == 0, "the directory can be used"


def test_a_dry_run_is_printed_once_and_writes_nothing(tmp_path, prompts):
    shown = together("torchrun", tmp_path / "run", prompts, "dry_run=true")
    assert shown.returncode == 0 and shown.stdout.count("dry run: nothing was written") == 1
    assert "workers    4 of 4 can be busy at once" in shown.stdout
    assert not (tmp_path / "run").exists()


def test_a_crash_of_one_rank_is_recorded_and_costs_one_image(tmp_path, prompts):
    done = together("torchrun", tmp_path / "run", prompts, FAKE_POISON="000000023-", FAKE_STEP_S="0.1")
    assert "1 image failed" in done.stderr and "exitcode  : 3 " in done.stderr, done.stderr
    assert list((tmp_path / "run" / "failures").glob("*.json"))
    assert verify(tmp_path / "run").returncode == 3


def test_ranks_of_srun_need_nobody_to_start_them_at_the_same_time(tmp_path, prompts):
    step = {"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "FAKE_STEP_S": "0.3"}
    arguments = (*SMALL, f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}")
    ranks = [start(FAKE, *arguments, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **step) for rank in (2, 1)]
    wait_for(lambda: all(len(left_of(f"run_dir={tmp_path / 'run'}")) == 2 for _ in ranks))
    ranks.append(start(FAKE, *arguments, SLURM_PROCID="0", SLURM_LOCALID="0", **step))
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], said
    assert said[:2] == ["", ""] and "3 workers load the model" in said[2]
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout


def test_ranks_notice_that_rank_0_was_killed_while_it_planned(tmp_path, prompts):
    step = {"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    arguments = (*SMALL, f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}")
    first = start(FAKE, *arguments, SLURM_PROCID="0", FAKE_PLAN_S="600", **step)
    wait_for(lambda: list((tmp_path / "run").glob("plan.group-slurm-41.0.0.json")))
    other = start(FAKE, *arguments, SLURM_PROCID="1", **step)
    with pytest.raises(Exception, match="timed out"):
        other.communicate(timeout=3)
    first.kill()
    first.communicate()
    said = other.communicate(timeout=30)[1]
    assert (other.returncode, said) == (
        1,
        f"batchgen: rank 0 ended before {tmp_path}/run was prepared: see what it said\n",
    )


@pytest.mark.parametrize("launcher", ["front", *LAUNCHERS])
def test_a_killed_launcher_leaves_no_orphans_and_loses_nothing(tmp_path, prompts, launcher):
    command = [*LAUNCHERS.get(launcher, []), *FAKE[0 if launcher == "front" else 1 :]]
    arguments = (*SMALL, f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "launch.workers=4")
    process = start(command, *arguments, FAKE_STEP_S="1")
    wait_for(lambda: workers_that_began(tmp_path / "run") == 4, timeout_s=60)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not left_of(tmp_path / "run"))
    process.communicate(timeout=30)
    assert not [path for path in (tmp_path / "run" / "leases").iterdir() if path.name.isdecimal()]
    kept = {path.name for path in (tmp_path / "run" / "work").glob("*.jsonl")}
    assert kept, "what was under way was finished and kept"
    assert front(tmp_path / "run", prompts).returncode == 0
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout


@pytest.mark.slow
def test_four_ranks_make_images_of_the_tiny_model(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    options = ("job=mars_batch", "job.steps=2", "job.batch_size=2", "output.batches_per_shard=1")
    arguments = (*REAL[1:], *options, f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}")
    done = run(LAUNCHERS["torchrun"], *arguments, cwd=ROOT, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len(re.findall("is done: 8 images in 4 shards", done.stderr)) == 1
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout
