"""The files of a report: put in place whole, at the end of a run and by the command, and never in the way of a run."""

import functools
import json
import os
import signal
import sys

import pytest
from PIL import Image

from batchgen.machine.process import identity
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.report import write
from batchgen.report.write import is_last, write_all
from batchgen.verify import verify
from tests.builders import finish_run, plan_run
from tests.commands import (
    FAKE,
    JOIN,
    SMALL,
    WORKER,
    beside_progress,
    front,
    kill_when,
    planned,
    run,
    workers_that_began,
    write_prompts,
)

REPORT = [sys.executable, "-m", "batchgen.report"]
FILES = ("report.html", "report.json", "contact_sheet.png", "samples.parquet", "README.md")


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 16)


def state(run_dir):
    return json.loads((run_dir / "report.json").read_text())["run"]["state"]


def test_a_run_ends_with_its_report(tmp_path, prompts):
    done = front(tmp_path / "run", prompts)
    assert done.returncode == 0
    assert not [line for line in beside_progress(done.stderr) if "report" in line]
    for name in FILES:
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert state(tmp_path / "run") == "done"
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert facts["samples"]["shown"] == 16
    assert "thumb" not in facts["samples"]["items"][0]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/webp;base64,") >= 16
    with Image.open(tmp_path / "run" / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert verify(load_plan(RunDir(tmp_path / "run"))).problems == []


def test_an_interrupted_run_has_a_report_which_the_same_command_replaces(tmp_path, prompts):
    run_dir = tmp_path / "run"
    words = [*SMALL, f"run_dir={run_dir}", f"job.prompts={prompts}", "job.batch_size=1"]
    began = functools.partial(workers_that_began, run_dir)
    code, _ = kill_when(0.3, began, FAKE, *words, number=signal.SIGINT, FAKE_STEP_S="0.3")
    assert code == 75
    assert state(run_dir) == "unfinished"
    assert run(FAKE, *words).returncode == 0
    assert state(run_dir) == "done"


def test_a_run_whose_worker_fails_has_a_report_that_says_why(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, FAKE_UNABLE="0", FAKE_WHY="full")
    assert done.returncode == 2
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert facts["run"]["state"] == "empty"
    assert any("9.00 GiB" in one["text"] for one in facts["events"])
    assert not (tmp_path / "run" / "contact_sheet.png").exists()


def test_a_worker_without_a_launcher_writes_the_report_at_the_end(tmp_path, prompts):
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(6)])
    assert run(WORKER, plan.run.root, 0, 1).returncode == 0
    assert state(plan.run.root) == "done"


def test_of_several_who_join_one_writes_the_report(tmp_path):
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(6)])
    assert run(JOIN, plan.run.root).returncode == 0
    assert state(plan.run.root) == "done"


def test_a_report_that_cannot_be_written_is_one_line_and_the_run_is_whole(tmp_path, prompts):
    run_dir = tmp_path / "run"
    planned(run_dir, prompts)
    (run_dir / "report.json").unlink()
    (run_dir / "report.json").mkdir()
    done = front(run_dir, prompts)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "the report" in line]
    assert line.endswith(f"(python -m batchgen.report {run_dir} tries again)")
    again = run(REPORT, run_dir)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    (run_dir / "report.json").rmdir()
    assert run(REPORT, run_dir).returncode == 0
    assert state(run_dir) == "done"


def test_whatever_goes_wrong_is_a_line(tmp_path, monkeypatch):
    plan = plan_run(tmp_path)
    finish_run(plan)

    def fail(*_):
        raise RecursionError

    monkeypatch.setattr(write, "gather", fail)
    (line,) = write_all(plan.run)
    assert line.startswith("the report was not written: RecursionError")


def test_a_run_whose_plan_is_broken_has_a_report_alone(tmp_path):
    plan = plan_run(tmp_path)
    finish_run(plan)
    plan.run.plan.facts.write_text("{}")
    assert write_all(plan.run) == []
    assert [plan.run.root.joinpath(name).exists() for name in FILES[:2] + FILES[3:]] == [True, True, False, False]


def test_a_reader_sees_the_old_files_or_the_new(tmp_path, monkeypatch):
    plan = plan_run(tmp_path)
    finish_run(plan)
    assert write_all(plan.run) == []
    before = {name: (plan.run.root / name).read_bytes() for name in FILES}
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    lines = write_all(plan.run)
    assert [line.partition(" was not written: ")[0] for line in lines] == ["samples.parquet or README.md", "the report"]
    assert all("No space left" in line for line in lines)
    assert {name: (plan.run.root / name).read_bytes() for name in FILES} == before
    assert not list(plan.run.root.glob(".*"))


def test_who_leaves_while_others_work_leaves_the_report_to_them(tmp_path):
    plan = plan_run(tmp_path)
    assert is_last(plan)
    lease = {"worker": "w", "process": identity(), "token": "t", "rows": 0, "step_s": None, "beat": 1}
    plan.run.lease(0).write_text(json.dumps(lease))
    assert not is_last(plan)
    plan.run.lease(0).unlink()
    plan.run.lease(0).mkdir()
    assert is_last(plan)


def test_one_report_of_several_runs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        finish_run(plan_run(tmp_path / name, ["a fox", "a hare"], job__name=name))
    runs = [tmp_path / name / "run" for name in ("a", "b")]
    done = run(REPORT, *runs, f"to={tmp_path / 'night.html'}")
    assert (done.returncode, done.stderr) == (0, f"batchgen: look at it: {tmp_path / 'night.html'}\n")
    facts = json.loads((tmp_path / "night.json").read_text())
    assert [one["name"] for one in facts["run"]["jobs"]] == ["a", "b"]
    assert (tmp_path / "night.png").is_file()
    assert not (runs[0] / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give one or more"),
        (["RUN", "OTHER"], "needs a name: add to=FILE.html"),
        (["RUN", "to=night.txt"], "must end with .html"),
        (["RUN", "to=/no/such/night.html"], "there is no directory /no/such"),
        (["RUN", "to=a.html", "to=b.html"], "once at most"),
        (["nowhere"], "is not a run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, says):
    from batchgen.report.__main__ import main

    (tmp_path / "other").mkdir()
    roots = {"RUN": plan_run(tmp_path).run.root, "OTHER": plan_run(tmp_path / "other").run.root}
    given = [str(roots.get(word, word)) for word in words]
    monkeypatch.setattr(sys, "argv", ["report", *(given or ["to=a.html"])])
    try:
        code = main()
    except SystemExit as error:
        code = int(error.code or 0)
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    assert says in told


def test_a_run_that_is_named_several_times_counts_once(tmp_path):
    (tmp_path / "b").mkdir()
    for folder, name in ((tmp_path, "a"), (tmp_path / "b", "b")):
        finish_run(plan_run(folder, ["a fox"] * 3, job__name=name))
    (tmp_path / "link").symlink_to(tmp_path / "run")
    same = ["run", "run/", tmp_path / "run", "b/../run", "link"]
    done = run(REPORT, *same, "b/run", "to=night.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "night.json").read_text())
    assert [one["name"] for one in facts["run"]["jobs"]] == ["a", "b"]
    assert facts["totals"]["planned"] == facts["samples"]["shown"] == 6
    alone = run(REPORT, *same, cwd=tmp_path)
    assert alone.returncode == 0 and alone.stderr == "batchgen: look at it: run/report.html\n"
    assert run(REPORT, *same, "to=one.html", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "one.json").read_text())["totals"]["planned"] == 3
