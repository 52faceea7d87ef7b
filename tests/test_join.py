"""`batchgen join`: more workers for a planned run, as an element of a job array starts them."""

import json
import random
import signal
import time

import pytest

from batchgen.join import share_of
from tests.commands import (
    JOIN,
    front,
    kill_when,
    left_of,
    memory_log,
    planned,
    run,
    samples,
    start,
    verify,
    wait_for,
    worker_events,
    workers_that_began,
    write_prompts,
)  # fmt: skip
from tests.launch.test_requeue import scontrol

ELEMENT = {
    "SLURM_JOB_ID": "44", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_COUNT": "4",
}  # fmt: skip


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 40)


def failures(run_dir):
    return len(list((run_dir / "failures").glob("*.json")))


def test_commands_that_join_share_the_work_and_one_finishes_the_run(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    both = [start(JOIN, tmp_path / "run", "--workers", 2, FAKE_STEP_S="0.1") for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("2 workers load the model; 0 of 40 images are there" in one for one in said)
    assert all("is done: 40 images in 5 shards" in one for one in said)
    assert (tmp_path / "run" / "index.json").is_file() and not list((tmp_path / "run" / "work").iterdir())
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout
    assert len({record["worker"] for record in memory_log(tmp_path / "run")}) == 4
    again = run(JOIN, tmp_path / "run")
    assert again.returncode == 0 and "is already done" in again.stderr


def test_tasks_of_a_step_that_join_start_one_worker_each_and_one_shows_the_progress(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    step = {"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "FAKE_STEP_S": "0.2"}
    tasks = [start(JOIN, tmp_path / "run", SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **step) for rank in (0, 1)]
    said = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "2 workers load the model" in said[0] and said[1] == ""
    ranks = [event["rank"] for event in worker_events(tmp_path / "run") if event["event"] == "start"]
    assert sorted(ranks) == [0, 1]


def test_a_crash_is_recorded_as_the_front_door_records_it(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    done = run(JOIN, tmp_path / "run", FAKE_POISON="000000023-")
    assert done.returncode == 3, done.stderr
    assert "1 image failed" in done.stderr
    assert failures(tmp_path / "run") >= 2
    assert verify(tmp_path / "run").returncode == 3


def test_what_is_no_run_or_no_number_is_refused_in_a_line(tmp_path, prompts):
    for arguments in ((tmp_path / "run",), (tmp_path / "run", "--workers", "0")):
        refused = run(JOIN, *arguments)
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) <= 2, refused.stderr


def test_a_log_says_which_element_it_was_and_where(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    assert run(JOIN, tmp_path / "run", **ELEMENT).returncode == 0
    began = [event for event in worker_events(tmp_path / "run") if event["event"] == "start"][-1]
    assert (began["element"], began["rank"], began["world"]) == ("41_3", 3, 4) and began["host"]


def ended_element(tmp_path, *settings, **environ):
    """Join as an element that SLURM ends soon, with a scontrol that writes down what it is asked; its end."""
    asked = scontrol(tmp_path, environ.pop("SCONTROL", "exit 0"))
    end = {"SLURM_JOB_END_TIME": str(int(time.time()) + 126), "FAKE_STEP_S": "0.7"}
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = run(JOIN, tmp_path / "run", **ELEMENT | end | path | environ)
    return done, asked.read_text() if asked.exists() else None


def test_an_element_at_its_time_limit_goes_back_into_the_queue(tmp_path, prompts):
    planned(tmp_path / "run", prompts, "launch.warn_s=120")
    set_free(tmp_path / "run", "launch.warn_s", 120)
    done, asked = ended_element(tmp_path)
    assert (done.returncode, asked) == (75, "requeue 41_3\n"), done.stderr
    assert "SLURM ends this job at " in done.stderr
    assert "job 41_3 was put back into the queue" in done.stderr


def set_free(run_dir, key, value):
    free = run_dir / "free.yaml"
    lines = [line for line in free.read_text().splitlines() if not line.startswith(f"{key}:")]
    free.write_text("\n".join([*lines, f"{key}: {json.dumps(value)}", ""]))


@pytest.mark.parametrize(
    ("key", "value", "environ"),
    [
        ("launch.requeue", False, {}),
        ("launch.stop_at", "2026-01-01T07:00", {}),
        ("launch.warn_s", 1000, {}),  # it has no time to make anything: it would come back for ever
        ("launch.warn_s", 120, {"SCONTROL": "echo disabled >&2; exit 1"}),
    ],
    ids=["off", "stop_at", "nothing made", "scontrol fails"],
)
def test_an_element_does_not_go_back_in_vain_or_against_the_settings(tmp_path, prompts, key, value, environ):
    planned(tmp_path / "run", prompts)
    set_free(tmp_path / "run", "launch.warn_s", 120)
    set_free(tmp_path / "run", key, value)
    done, asked = ended_element(tmp_path, **environ)
    assert done.returncode == 75, done.stderr
    assert (asked is not None) == bool(environ), done.stderr
    assert "was put back" not in done.stderr and "the same command goes on" in done.stderr


@pytest.mark.parametrize(("number", "is_asked"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_warning_puts_an_element_back_and_preemption_leaves_that_to_slurm(tmp_path, prompts, number, is_asked):
    planned(tmp_path / "run", prompts)
    asked = scontrol(tmp_path, "exit 0")
    environ = ELEMENT | {"PATH": f"{tmp_path}:/usr/bin:/bin", "FAKE_STEP_S": "0.5"}
    log = tmp_path / "run" / "logs" / "workers"
    made = lambda: any('"made"' in path.read_text() for path in log.glob("*.jsonl"))  # noqa: E731
    code, said = kill_when(0, made, JOIN, tmp_path / "run", number=number, **environ)
    assert code == 75 and asked.exists() == is_asked, said
    assert not list((tmp_path / "run" / "leases").iterdir())


def test_an_element_leaves_when_others_make_all_that_is_left(tmp_path, prompts):
    planned(tmp_path / "run", prompts, "output.batches_per_shard=10")
    set_free(tmp_path / "run", "launch.lease_timeout_s", 2.0)
    busy = start(JOIN, tmp_path / "run", FAKE_STEP_S="1.5", **ELEMENT | {"SLURM_ARRAY_TASK_ID": "0"})
    wait_for(lambda: (tmp_path / "run" / "leases" / "000000").exists())
    spare = run(JOIN, tmp_path / "run", **ELEMENT)
    assert (spare.returncode, busy.poll()) == (0, None), spare.stderr
    assert "other workers make all that is left: finishing the units under way" in spare.stderr
    assert busy.wait(timeout=60) == 0, busy.communicate()[1]
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout


def test_a_worker_outlives_its_killed_launcher_only_to_commit_what_is_under_way(tmp_path, prompts):
    planned(tmp_path / "run", prompts)
    process = start(JOIN, tmp_path / "run", "--workers", 2, FAKE_STEP_S="1")
    wait_for(lambda: workers_that_began(tmp_path / "run") == 2)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not left_of(tmp_path / "run"))
    assert not [path for path in (tmp_path / "run" / "leases").iterdir() if path.name.isdecimal()]
    assert front(tmp_path / "run", prompts).returncode == 0
    assert "0 batches were made twice\nwhole" in verify(tmp_path / "run").stdout
    front(tmp_path / "whole", prompts)
    assert samples(tmp_path / "run") == samples(tmp_path / "whole")


def test_workers_begin_at_their_place_in_the_array_or_at_one_that_is_drawn():
    share = share_of(ELEMENT | {"SLURM_ARRAY_TASK_MIN": "1"}, ["0", "1"], 2, 100)
    assert (list(share.ranks), share.world, share.here) == ([4, 5], 8, 2)
    assert list(share_of(ELEMENT, [], None, 100).ranks) == [3]
    random.seed(7)
    drawn = {share_of({}, [], None, 100).ranks.start for _ in range(20)}
    assert len(drawn) > 10 and max(drawn) < 100
    assert len(share_of({}, ["0", "1", "2"], None, 2).ranks) == 2  # no more workers than shards
