"""The scripts in jobs/ by plain sbatch, and what a cluster refuses: one line, and nothing is left in the queue."""

import sys

import pytest

from batchgen.paths import RunDir
from tests.cluster.conftest import Site
from tests.commands import REAL, ROOT, samples, verify, worker_events, write_prompts

JOB = ("job.width=64", "job.height=64", "job.batch_size=4", "output.batches_per_shard=2")


def job(site, name="run"):
    prompts = write_prompts(site.folder / "prompts.txt", 64)
    return ["job=mars_batch", f"run_dir={site.folder / name}", f"job.prompts={prompts}", *JOB]


def test_the_srun_script_shares_one_run_among_its_tasks(cluster, site):
    script = str(ROOT / "jobs" / "srun.sbatch")
    options = ["--parsable", "--ntasks=4", "--gpus-per-task=1", "--time=10", f"--output={site.folder}/%j.log"]
    environment = site.environment(FAKE_STEP_S="0.5", PYTHON=sys.executable)
    done = site.batchgen(["sbatch"], *options, script, *job(site), **environment)
    assert done.returncode == 0, done.stderr
    number = done.stdout.strip()
    cluster.until(90, "the job", lambda: number not in cluster.queue())
    told = (site.folder / f"{number}.log").read_text()
    assert (site.folder / "run" / "index.json").is_file(), told
    assert len([name for name in samples(site.folder / "run") if name.endswith(".png")]) == 64
    starts = [event for event in worker_events(site.folder / "run") if event["event"] == "start"]
    assert len(starts) == 4, told
    assert verify(site.folder / "run").returncode == 0
    assert not list((site.folder / "run").glob("plan.*")), "more than one plan was made"


def refused(site, *more, code=2, **environment):
    done = site.batchgen(REAL, *job(site), "launch=slurm", "launch.workers=4", *more, **environment)
    assert done.returncode == code, done.stderr
    assert site.cluster.queue() == {}
    assert not list((site.folder / "run" / "slurm").glob("*")) if (site.folder / "run" / "slurm").exists() else True
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("launch.slurm.partition=gpuu", "this cluster has no partition gpuu; choose one of gpu, high"),
        ("launch.slurm.time=3-00:00:00", "runs a job for 24h00m at most"),
        ("launch.slurm.partiton=gpu", "did you mean partition?"),
        ("launch.slurm.gres=gpu:9", "Requested node configuration is not available"),
        ("launch.slurm.mem=lots", "Invalid --mem specification"),
        ("launch.collector.partition=nowhere", "launch.collector holds its options"),
    ],
)
def test_what_the_cluster_does_not_take_is_one_line_and_leaves_nothing(site, option, said):
    assert said in refused(site, "launch.slurm.partition=gpu", option)


def test_without_sbatch_nothing_is_begun(site, tmp_path):
    told = refused(site, PATH="/nowhere")
    assert "sbatch: this machine has no such command" in told
    assert not (site.folder / "run").exists()


def test_a_full_queue_is_one_line_and_nothing_is_left_in_it(full_cluster, tmp_path):
    site = Site(full_cluster, tmp_path)
    full_cluster.tell("sbatch", "--hold", "--array=0-7", "--wrap", "true")
    filled = full_cluster.queue()
    done = site.batchgen(REAL, *job(site), "launch=slurm", "launch.workers=4")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "the queue of this cluster is full" in done.stderr
    assert full_cluster.queue() == filled
    assert not (site.folder / "run" / "slurm").exists()


def test_a_controller_that_hangs_is_not_waited_for(cluster, site):
    import signal

    process = cluster._processes["slurmctld"]
    process.send_signal(signal.SIGSTOP)
    try:
        done = site.batchgen(REAL, *job(site), "launch=slurm", "launch.workers=4", timeout_s=60)
    finally:
        process.send_signal(signal.SIGCONT)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_cancel_drains_what_runs_takes_out_what_waits_and_the_same_command_goes_on(cluster, site):
    slow = {"FAKE_STEP_S": "1.5"}
    command = [*job(site), "launch=slurm", "launch.workers=8", "launch.at_once=2"]
    assert site.batchgen(REAL, *command, **site.environment(**slow)).returncode == 0
    run = RunDir(site.folder / "run")
    cluster.until(60, "the first shard", lambda: run.committed())
    done = site.batchgen([*REAL, "cancel"], run.root)
    assert done.returncode == 0, done.stderr
    assert "cancelled" in done.stderr
    cluster.until(60, "the end of all elements", lambda: not cluster.queue())
    made = len(run.committed())
    assert 0 < made < 8 and not run.index.exists()
    assert not list(run.failures.glob("*")) if run.failures.is_dir() else True
    assert "8 elements" not in (said := site.batchgen(REAL, *command, **site.environment()).stderr), said
    cluster.until(60, "the run", run.index.exists)
    assert verify(run.root).returncode == 0
