"""A night on a cluster: everything that SLURM does to jobs happens to one array, and the run is made whole."""

import json
import subprocess
import time
from collections import Counter

import pytest

from batchgen.paths import RunDir
from tests.cluster.conftest import Site
from tests.commands import REAL, ROOT, samples, verify, wait_for, write_prompts

SHARDS = 120
PER_SHARD = 8
# Of each micro-batch, of which a shard has two: eight elements need about a minute and a half for the run.
STEP_S = "2.8"


def command(site, prompts, run_dir, *more):
    return [
        *REAL, "job=mars_batch", f"run_dir={run_dir}", f"job.prompts={prompts}", "job.width=64", "job.height=64",
        "job.batch_size=4", "output.batches_per_shard=2", "launch=slurm", "launch.workers=8",
        "launch.slurm.partition=gpu", "launch.lease_timeout_s=10", "launch.warn_s=15", *more,
    ]  # fmt: skip


def elements_on(cluster, job):
    """{node: the elements of the array that run on it}."""
    found: dict[str, list[str]] = {}
    for name, (state, node) in cluster.queue().items():
        if state == "RUNNING" and name.startswith(f"{job}_"):
            found.setdefault(node, []).append(name)
    return found


def submitted(run):
    return [json.loads(path.read_text()) for path in sorted(run.slurm.glob("[0-9]*.json"))]


class Night:
    """The run, what happens to it, and the same command again."""

    def __init__(self, cluster, folder):
        self.cluster, self.site = cluster, Site(cluster, folder)
        self.run = RunDir(self.site.folder / "the run")
        prompts = write_prompts(self.site.folder / "prompts.txt", SHARDS * PER_SHARD)
        self.command = command(self.site, prompts, self.run.root)
        self.environment = self.site.environment(FAKE_STEP_S=STEP_S)

    def start(self):
        import os

        return subprocess.Popen(
            self.command, cwd=self.site.folder, env=os.environ | self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def again(self):
        """The same command again; what it says."""
        process = self.start()
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        return said

    def committed(self):
        return len(self.run.committed())

    def live(self):
        jobs = {one["job"] for one in submitted(self.run)}
        return [name for name in self.cluster.queue() if name.partition("_")[0] in jobs]

    def whole(self):
        """Wait for the run; where no element is left before it is whole, the same command again."""
        end_s = time.monotonic() + 240
        while not self.run.index.exists():
            assert time.monotonic() < end_s, (self.committed(), self.cluster.queue())
            if not self.live() and self.committed() < SHARDS:
                self.again()
            time.sleep(1)


def two_submitters(night):
    both = [night.start(), night.start()]
    said = [one.communicate(timeout=180)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    notes = submitted(night.run)
    assert len(notes) == 1, notes
    job, collector = notes[0]["job"], notes[0]["collector"]
    assert all(job in one and collector in one for one in said), said
    jobs = Counter(name.partition("_")[0] for name in night.cluster.queue())
    assert jobs == {job: 8, collector: 1}, (jobs, said)
    return job


def disturb(night, job):
    """Everything that can happen to an array, while it works."""
    cluster = night.cluster
    wait_for(lambda: night.committed() >= 8 and len(elements_on(cluster, job)) == 4, timeout_s=90)
    placed = elements_on(cluster, job)
    lost, preempted, handled, frozen = placed
    cluster.crash(lost)
    cluster.freeze(frozen)
    high = ["--wrap", "sleep 2", "-p", "high", "-w", preempted, "--gres=gpu:2", "-o", "/dev/null"]
    cluster.tell("sbatch", *high)
    by_hand, cancelled = placed[handled][:2]
    cluster.tell("scontrol", "requeue", by_hand)
    cluster.tell("scancel", cancelled)
    cluster.until(10, "the end of the cancelled element", lambda: cancelled not in cluster.queue())
    said = night.again()
    assert "7 elements of 8 live; 1 element is added" in said, said
    assert "enough" in night.again()
    cluster.until(60, "the frozen node to be lost", lambda: "DOWN" in cluster.state(frozen))
    cluster.start_node(lost)
    late = next(iter(elements_on(cluster, job).values()))[0]
    cluster.tell("scontrol", "update", f"jobid={late}", "timelimit=1")
    before = night.committed()
    wait_for(lambda: night.committed() > before + 4, timeout_s=60)  # both copies of the frozen elements work
    cluster.thaw(frozen)
    return {"late": late, "by_hand": by_hand}


def logs(run):
    return {path.stem: path.read_text() for path in (run.worker_logs.parent / "slurm").glob("*.log")}


def let_go_of_what_slurm_holds(night):
    """Where slurmd refused a second copy of a job, SLURM takes it for running for minutes: a person cancels it."""
    end_s = time.monotonic() + 30
    while night.cluster.queue() and time.monotonic() < end_s:
        time.sleep(1)
    for one in submitted(night.run):
        night.cluster.ask("scancel", one["job"])


def night_is_whole(cluster, folder):
    night = Night(cluster, folder)
    job = two_submitters(night)
    marked = disturb(night, job)
    night.whole()
    done = verify(night.run.root)
    assert (done.returncode, "whole" in done.stdout) == (0, True), (done.stdout, done.stderr)
    assert len([name for name in samples(night.run.root) if name.endswith(".png")]) == SHARDS * PER_SHARD
    assert not list(night.run.failures.glob("*")) if night.run.failures.is_dir() else True
    let_go_of_what_slurm_holds(night)
    cluster.until(60, "the checks", lambda: not cluster.queue())
    checks = [json.loads(path.read_text()) for path in night.run.slurm.glob("check-*.json")]
    last = submitted(night.run)[-1]["collector"]
    assert {one["job"]: one["code"] for one in checks}[last] == 0, checks
    assert "put back into the queue" in logs(night.run)[marked["late"]], logs(night.run)[marked["late"]]
    assert len(logs(night.run)) == sum(one["elements"] + 1 for one in submitted(night.run))
    return night


def test_a_night_without_accounting(cluster, tmp_path):
    night = night_is_whole(cluster, tmp_path)
    assert "is already done" in night.again()


def test_a_night_with_accounting(accounted, tmp_path):
    night_is_whole(accounted, tmp_path)


@pytest.mark.slow
def test_an_undisturbed_array_with_the_tiny_model(site):
    run_dir = site.folder / "tiny"
    prompts = write_prompts(site.folder / "prompts.txt", 16)
    done = site.batchgen(
        REAL, "job=mars_batch", f"run_dir={run_dir}", f"job.prompts={prompts}", "job.width=64", "job.height=64",
        "job.steps=2", "job.batch_size=2", "output.batches_per_shard=1", "launch=slurm", "launch.workers=4",
        "launch.slurm.gres=null", "launch.wait=true", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is done: 16 images in 8 shards" in done.stderr
    assert verify(run_dir).returncode == 0
