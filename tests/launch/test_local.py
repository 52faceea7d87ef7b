"""Workers that cannot work, die or crash, through the front door and with the torch-free engine."""

import json
import re
import sys
import time

import pytest

from batchgen.errors import EXIT_BROKEN
from batchgen.launch import local
from batchgen.machine.host import Room
from batchgen.machine.process import StopEvent
from tests.builders import plan_run
from tests.commands import front, samples, verify, write_prompts

ROWS = 40


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", ROWS)


def failed(run_dir):
    """{key: reason} of the images that a run does without."""
    manifests = [json.loads(path.read_text()) for path in (run_dir / "shards").glob("*.json")]
    every = [one for manifest in manifests for one in manifest["samples"] if one["status"] != "ok"]
    return {one["key"]: one["reason"] for one in every}


def crashes(run_dir):
    return sorted(path.suffix for path in (run_dir / "failures").glob("*"))


@pytest.mark.parametrize(
    ("death", "workers", "reason"),
    [
        ("SIGSEGV", 1, "ended by SIGSEGV"),
        ("error", 2, "IndexError: index out of range in self"),
        ("png", 1, "ended by SIGSEGV"),
    ],
)
def test_a_row_that_crashes_is_lost_alone_and_can_be_tried_again(tmp_path, prompts, death, workers, reason):
    rows = ("job.batch_size=20", f"launch.workers={workers}")
    done = front(tmp_path / "run", prompts, *rows, FAKE_POISON="000000023-", FAKE_DEATH=death)
    assert done.returncode == 3, done.stderr
    assert failed(tmp_path / "run").keys() == {"000000000023-00"}
    assert reason in failed(tmp_path / "run")["000000000023-00"]
    assert verify(tmp_path / "run").returncode == 3
    front(tmp_path / "whole", prompts, *rows)
    expected = samples(tmp_path / "whole")
    lost = {name for name in expected if name.startswith("000000000023-00")}
    made = samples(tmp_path / "run")
    assert made == {name: data for name, data in expected.items() if name not in lost}
    assert not list((tmp_path / "run" / "work").iterdir())
    again = front(tmp_path / "run", prompts, *rows, "retry_failed=true")
    assert again.returncode == 0, again.stderr
    assert samples(tmp_path / "run") == expected


def test_two_poison_rows_in_sixteen_shards_cost_a_single_worker_two_images(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 128)
    done = front(tmp_path / "run", prompts, FAKE_POISON="000000045- 000000105-")
    assert done.returncode == 3, done.stderr
    assert failed(tmp_path / "run").keys() == {"000000000045-00", "000000000105-00"}
    assert len(samples(tmp_path / "run")) == 3 * 126
    assert "given up" not in done.stderr and "against its device" not in done.stderr


def test_poison_rows_in_many_shards_in_a_row_do_not_speak_against_a_device_that_works(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 48)
    poison = "000000011- 000000023- 000000035- 000000047-"
    done = front(tmp_path / "run", prompts, "output.batches_per_shard=3", FAKE_POISON=poison)
    assert (done.returncode, len(failed(tmp_path / "run"))) == (3, 4), done.stderr


def test_kills_set_no_row_aside(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, "launch.restarts=6", FAKE_POISON="000000002-", FAKE_DEATH="SIGKILL")
    assert done.returncode == 1
    assert "killed by SIGKILL; given up after 6 restarts" in done.stderr
    assert not (tmp_path / "run" / "failures").exists()
    healed = front(tmp_path / "run", prompts)
    assert (healed.returncode, failed(tmp_path / "run")) == (0, {})


@pytest.mark.parametrize("why", ["no_cuda", "full"])
def test_a_worker_that_cannot_work_says_why_and_leaves_and_the_others_go_on(tmp_path, prompts, why):
    done = front(tmp_path / "run", prompts, "launch.workers=2", FAKE_UNABLE="0", FAKE_WHY=why, FAKE_STEP_S="0.05")
    assert done.returncode == 0, done.stderr
    said = {"no_cuda": "torch cannot use the GPU that this worker was given, GPU-7", "full": "9.00 GiB of free device"}
    assert said[why] in done.stderr
    assert "worker 0 has left; 1 of 2 go on" in done.stderr
    assert verify(tmp_path / "run").returncode == 0


def test_where_no_worker_can_work_the_run_ends_with_their_code(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, FAKE_UNABLE="0", FAKE_WHY="no_cuda")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2, "what is waited for, and why it ended"
    assert "set CUDA_VISIBLE_DEVICES to other GPUs, or leave it empty to compute on the CPU" in done.stderr


def test_a_model_that_cannot_be_read_for_a_moment_is_tried_again(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, FAKE_UNABLE="0", FAKE_WHY="hiccup")
    assert done.returncode == 0 and "Stale file handle" not in done.stderr, done.stderr
    refused = front(tmp_path / "other", prompts, "launch.restarts=1", FAKE_UNABLE="0", FAKE_WHY="hiccup")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[1:] == ["batchgen: worker 0: the model cannot be loaded: Stale file handle"]


def in_its_place(name):
    return lambda run: (run / name).mkdir(parents=True)


def other_fields(run):
    (run / "policies").mkdir(exist_ok=True)
    (run / "policies/fake-64x64.json").write_text('{"micro_batch": 4}')


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (in_its_place("leases/000000"), 2, "Is a directory: .*/leases/000000: .*; move it away"),
        (in_its_place("policies/fake-64x64.json"), 2, "Is a directory: .*/policies/fake-64x64.json: .*; move it away"),
        (in_its_place("shards/000000.tar"), 2, "Is a directory: .*/shards/000000.tar: .*; move it away"),
        (in_its_place("logs/memory/000000.jsonl"), 2, "Is a directory: .*/logs/memory/000000.jsonl: .*; move it away"),
        (other_fields, 1, "does not hold a policy .its fields are others.; remove it to have one chosen again"),
    ],
)
def test_what_another_start_would_not_change_is_said_once_and_nothing_is_started_again(
    tmp_path, prompts, damage, code, words
):
    front(tmp_path / "run", prompts, FAKE_UNABLE="0", FAKE_WHY="no_cuda")  # it is planned, and nothing is made
    damage(tmp_path / "run")
    done = front(tmp_path / "run", prompts, "launch.lease_timeout_s=2")
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("batchgen: worker 0")]
    assert len(said) == 1 and re.search(words, said[0]), done.stderr
    assert "started again" not in done.stderr


def test_a_poison_gpu_leaves_its_crashes_are_struck_and_the_others_make_every_image(tmp_path, prompts):
    poisoned = {"FAKE_POISONED": "1", "FAKE_STEP_S": "0.5"}
    done = front(tmp_path / "run", prompts, "launch.workers=2", "job.batch_size=2", **poisoned)
    assert done.returncode == 0, done.stderr
    assert "its crashes point to its device (cpu), not to the images" in done.stderr
    assert crashes(tmp_path / "run") == [".struck"] * 3
    assert len(samples(tmp_path / "run")) == 3 * ROWS


@pytest.mark.parametrize("shards", [5, 1])
def test_a_poison_gpu_alone_ends_the_run_and_blames_no_row(tmp_path, prompts, shards):
    whole = ("output.batches_per_shard=10",) if shards == 1 else ()
    done = front(tmp_path / "run", prompts, *whole, FAKE_POISONED="0")
    assert done.returncode == 1, done.stderr
    assert "its crashes point to its device (cpu), not to the images" in done.stderr
    assert set(crashes(tmp_path / "run")) == {".struck"}
    healed = front(tmp_path / "run", prompts, *whole)
    assert (healed.returncode, failed(tmp_path / "run")) == (0, {})


def test_what_workers_say_last_is_heard(tmp_path, monkeypatch):
    code = "import sys; [print('line', place, file=sys.stderr) for place in range(300)]; sys.exit(2)"
    monkeypatch.setattr(local, "WORKER_COMMAND", [sys.executable, "-c", code])
    said = []

    def say(line):
        time.sleep(0.003)  # a slow terminal
        said.append(line)

    plan = plan_run(tmp_path, ["a"])
    assert local.launch(local.Crew(plan, local.Share.whole(plan, []), say), StopEvent(), lambda: None, say) == 2
    assert said == [f"line {place}" for place in range(300)]


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(("counted", "says"), [(0, "was killed by SIGKILL"), (1, "host's memory was used up")])
def test_a_worker_that_the_kernel_ended_for_lack_of_memory_is_told_so(tmp_path, monkeypatch, counted, says):
    said = []
    kills = iter(range(0, 100 * counted, counted) if counted else [0] * 100)
    monkeypatch.setattr(local, "WORKER_COMMAND", [sys.executable, "-c", KILLED])
    monkeypatch.setattr(local.oom, "kills", lambda: next(kills))
    plan = plan_run(tmp_path, ["a"], launch__restarts=1)
    crew = local.Crew(plan, local.Share.whole(plan, []), said.append)
    assert local.launch(crew, StopEvent(), lambda: None, said.append) == EXIT_BROKEN
    assert len(said) == 2 and all(says in line for line in said)
    assert "started again (1 of 1)" in said[0] and "given up after 1 restarts" in said[1]


def test_a_worker_is_told_its_part_of_the_host(tmp_path, monkeypatch):
    told = tmp_path / "told"
    code = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(os.environ['BATCHGEN_HOST_ROOM'])"
    monkeypatch.setattr(local, "WORKER_COMMAND", [sys.executable, "-c", code])
    monkeypatch.setattr(local, "room_for", lambda workers: Room(1000 // workers, 10, workers))
    plan = plan_run(tmp_path, ["a"])
    local.launch(local.Crew(plan, local.Share([], range(1), 4, 4), print), StopEvent(), lambda: None, print)
    assert told.read_text() == "250 10"
