"""`python -m batchgen.status`: how far a run is, what failed, and the exit code."""

import json
import os
import signal
import subprocess
import sys

from batchgen import status
from batchgen.events import EventLog
from batchgen.machine import process
from batchgen.plan.replan import at_work
from tests.builders import finish_run, full_attempt, plan_run
from tests.commands import ROOT, front, run, write_prompts
from tests.large_run import Large, large_run

STATUS = [sys.executable, "-m", "batchgen.status"]
PROMPTS = [f"fox {number}" for number in range(6)]


def test_status_ends_with_0_only_for_a_whole_run(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 50)
    front(tmp_path / "run", prompts, FAKE_NAN="00003")
    assert run(STATUS, tmp_path / "run").returncode == 3
    (tmp_path / "run" / "shards" / "000005.json").unlink()
    assert run(STATUS, tmp_path / "run").returncode == 75
    front(tmp_path / "good", prompts)
    assert run(STATUS, tmp_path / "good").returncode == 0


def test_status_says_how_many_workers_a_plan_can_occupy(tmp_path):
    plan_run(tmp_path, [f"prompt {place}" for place in range(9)])
    said = run(STATUS, tmp_path / "run").stdout
    assert "3 shards are left: up to 3 workers can be busy at once" in said
    (tmp_path / "one").mkdir()
    plan_run(tmp_path / "one", PROMPTS[:1])
    assert "1 shard is left: up to 1 worker can be busy at once" in run(STATUS, tmp_path / "one" / "run").stdout


def test_failed_images_are_listed_with_their_reasons(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    bad = plan.shard(1)[0].keys[0]
    finish_run(plan, [bad])
    assert status.show(plan.run) == 3
    said = capsys.readouterr().out
    assert f"{plan.run.root}: done" in said and "6/6 images, 3/3 shards" in said
    assert "1 failed image, 0 rejected rows" in said and f"  {bad}: " in said


def test_a_broken_run_says_what_is_broken_and_what_to_do(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    full_attempt(plan, 0).commit()
    plan.run.tar(0).unlink()
    assert status.show(plan.run) == 1
    said = capsys.readouterr().out
    assert "broken: shard 000000's tar is missing" in said and "batchgen.repair" in said


def test_json_says_all_of_it_in_one_line(tmp_path):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    bad = plan.shard(1)[0].keys[0]
    full_attempt(plan, 1, [bad]).commit()
    done = run(STATUS, plan.run.root, "--json")
    says = json.loads(done.stdout)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (75, 1, "")
    assert (says["state"], says["images"], says["planned_images"]) == ("not running", 2, 6)
    assert (says["shards"], says["planned_shards"], says["workers"], says["eta_s"]) == (1, 3, 0, None)
    assert list(says["failed_images"]) == [bad] and says["exit_code"] == 75
    plan.run.tar(1).unlink()
    done = run(STATUS, plan.run.root, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "broken")


def test_a_worker_that_loads_the_model_is_shown(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS)
    log = EventLog(plan.run.worker_log(process.worker_name(0)))
    log.add("start", rank=0, world=1, pid=os.getpid())
    with at_work(plan):
        assert status.show(plan.run) == 75
        said = capsys.readouterr().out
        assert "1 worker starting" in said and "1 worker is loading the model, for " in said
        log.add("loaded", device="cpu", seconds=2)
        status.show(plan.run, json=True)
        [starting] = json.loads(capsys.readouterr().out)["starting"]
        assert starting["does"] == "choosing a policy" and starting["for_s"] < 60
    status.show(plan.run)
    assert "not running" in capsys.readouterr().out, "the process has ended"


def test_watch_adds_lines_until_the_run_is_done(tmp_path, monkeypatch, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    monkeypatch.setattr(status, "_LINE_EVERY_S", 0.0)
    read, made = status.read_status, iter(range(plan.shard_count))

    def read_and_make(*arguments):
        says = read(*arguments)
        if (shard := next(made, None)) is not None:
            full_attempt(plan, shard).commit()
        return says

    monkeypatch.setattr(status, "read_status", read_and_make)
    assert status.show(plan.run, watch=True) == 0
    said = capsys.readouterr().out
    assert [f"{images}/6 images" in line for images, line in zip((0, 2, 4), said.splitlines(), strict=False)] == [
        True
    ] * 3
    assert f"{plan.run.root}: done" in said


def test_watch_draws_over_itself_on_a_terminal(tmp_path, monkeypatch, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert status.show(plan.run, watch=True) == 0
    first = capsys.readouterr().out
    rows = first.count("\n")
    assert first.endswith("\x1b[J") and "6/6 images" in first
    assert status._draw(["one"], rows) == 1
    assert capsys.readouterr().out == f"\x1b[{rows}Fone\x1b[K\n\x1b[J"


def test_ctrl_c_ends_a_watch_without_a_word(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    watching = subprocess.Popen(
        [*STATUS, str(plan.run.root), "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert watching.stdout is not None
    assert "not running: 0/6 images" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    out, errors = watching.communicate(timeout=60)
    assert (watching.returncode, out, errors) == (75, "", "")


def test_the_workers_are_listed_with_what_they_do(tmp_path, capsys):
    plan = large_run(tmp_path, Large(shards=40, finished=10, workers=25))
    assert status.show(plan.run) == 75
    said = capsys.readouterr().out
    assert "25 workers running" in said and "and 5 workers more: 5 working" in said
    [row] = [line for line in said.splitlines() if "node7-0-00000007" in line]
    assert " ".join(row.split()).startswith("node7-0-00000007 17_7 node7 H200 0.0")
    status.show(plan.run, json=True)
    crew = json.loads(capsys.readouterr().out)["crew"]
    assert len(crew) == 25 and {member["state"] for member in crew} == {"working"}
    assert {"worker", "host", "device", "element", "shard", "images_per_s", "seen_s"} <= crew[0].keys()


def test_what_the_elements_do_stands_beside_it(tmp_path, capsys, monkeypatch):
    plan = large_run(tmp_path, Large(shards=40, finished=10, workers=2))
    plan.run.slurm.mkdir()
    (plan.run.slurm / "001.json").write_text(
        json.dumps({"job": "17", "elements": 4, "collector": "18", "submitted_at": 1.0})
    )
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho '17_3|PENDING|Resources||2026-11-28T03:10:00|gpu'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    status.show(plan.run)
    assert "array 17, 4 elements: 2 running, 1 over, 1 waiting (Resources)" in capsys.readouterr().out
    squeue.write_text("#!/bin/sh\necho 'squeue: error: no' >&2; exit 1\n")
    status.show(plan.run, json=True)
    says = json.loads(capsys.readouterr().out)
    assert [element["does"] for element in says["elements"]] == ["running", "running", "not heard of", "not heard of"]
    assert "squeue" in says["squeue_problem"]


def test_a_large_run_says_that_most_shards_go_by_their_names(tmp_path, capsys):
    plan = large_run(tmp_path, Large(shards=100, finished=80, workers=0))
    status.show(plan.run)
    said = capsys.readouterr().out
    assert "0 failed images in the newest 64 of 80 finished shards" in said
    assert f"the others go by their names: python -m batchgen.verify {plan.run.root}" in said


def test_who_asked_the_workers_to_end_is_told(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS)
    plan.run.stop.write_text(json.dumps({"by": "anna on login1", "at": "2026-01-02T03:04:05+00:00"}))
    status.show(plan.run)
    assert (
        "anna on login1 asked all workers to end; the same command as before starts workers again"
        in capsys.readouterr().out
    )


def test_status_says_how_many_shards_are_copied(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1, output__copy_to=str(tmp_path / "away"))
    finish_run(plan)
    status.show(plan.run)
    assert f"0 of 3 shards are copied to {tmp_path / 'away'}" in capsys.readouterr().out
