"""Workers that begin while the front door plans: which of them go on, and that none is left behind."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchgen.launch import local
from batchgen.launch.ahead import Ahead, classes_of
from batchgen.launch.local import Child, Share
from batchgen.machine.host import as_told
from batchgen.models.find import find_model
from batchgen.paths import RunDir
from tests.builders import make_config
from tests.commands import FAKE, front, kill_when, left_of, start, wait_for, worker_events, write_prompts

# Writes down what it is told and which GPU it has, and stays until its standard input ends.
STAYS = """
import json, os, sys
line = sys.stdin.readline()
with open(sys.argv[1] + sys.argv[2], "w") as file:
    json.dump([json.loads(line or "null"), sys.argv[3:], os.environ.get("CUDA_VISIBLE_DEVICES")], file)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "WORKER_COMMAND", [sys.executable, "-c", STAYS])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def begun(ahead: Ahead) -> dict[int, Child]:
    return dict(ahead._children)


def told(tmp_path: Path, rank: int) -> list[Any]:
    path = tmp_path / f"run{rank}"
    wait_for(lambda: path.exists() and path.read_bytes().endswith(b"]"))
    told: list[Any] = json.loads(path.read_text())
    return told


def test_those_that_suit_the_plan_go_on_and_the_others_are_ended(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with Ahead() as ahead:
        ahead.begin(RunDir(tmp_path / "run"), config, Share.of(["GPU-a", "GPU-b", "GPU-c"], 3))
        every = begun(ahead)
        # One shard less than GPUs, and the second GPU cannot do the job, so that it comes last.
        share = Share.of(["GPU-a", "GPU-c", "GPU-b"], 2)
        taken, room = ahead.hand_over(share)
        assert set(taken) == {0} and taken[0] is every[0]
        order, arguments, device = told(tmp_path, 0)
        assert (order, device) == ({"world": 2, "told": as_told(room)}, "GPU-a") and room.workers == 2
        assert arguments[:3] == ["3", "--tied", "--name"] and arguments[3] == taken[0].name
        for rank in (1, 2):
            assert every[rank].process.wait(20) == -signal.SIGKILL
    assert taken[0].process.poll() is None, "whoever took it ends it"
    taken[0].process.kill()
    taken[0].process.communicate()


def test_what_nobody_took_is_ended_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with Ahead() as ahead:
        ahead.begin(RunDir(tmp_path / "run"), make_config(tmp_path), Share.of([], 1))
        (child,) = begun(ahead).values()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1.0
    assert child.process.wait(20) == -signal.SIGKILL


def test_one_that_has_died_meanwhile_is_not_handed_over(tmp_path: Path) -> None:
    with Ahead() as ahead:
        ahead.begin(RunDir(tmp_path / "run"), make_config(tmp_path), Share.of([], 1))
        (child,) = begun(ahead).values()
        child.process.kill()
        child.process.wait()
        assert ahead.hand_over(Share.of([], 1)).children == {}


def test_none_begins_for_a_run_that_is_whole_or_where_starts_are_spread(tmp_path: Path) -> None:
    config, run = make_config(tmp_path), RunDir(tmp_path / "run")
    with Ahead() as ahead:
        ahead.begin(run, config, Share([], range(1), 2, 1))
        assert begun(ahead) == {}, "others are on other machines"
        spread = make_config(tmp_path, launch__spread_s=10.0)
        ahead.begin(run, spread, Share.of([], 1))
        assert begun(ahead) == {}
        run.root.mkdir()
        run.index.write_text("{}")
        ahead.begin(run, config, Share.of([], 1))
        assert begun(ahead) == {}


@pytest.mark.parametrize("model", ["someone/elsewhere", "none"])
def test_where_the_model_is_not_here_only_the_engine_is_imported(tmp_path: Path, model: str) -> None:
    with Ahead() as ahead:
        ahead.begin(RunDir(tmp_path / "run"), make_config(tmp_path, model__path=model), Share.of([], 1))
        assert set(ahead.hand_over(Share.of([], 1)).children) == {0}
        _, arguments, _ = told(tmp_path, 0)
        assert arguments[-2:] == ["--ahead", ""]


def test_the_classes_are_those_that_the_model_is_loaded_by(tmp_path: Path) -> None:
    model = find_model(make_config(tmp_path).model)
    assert model is not None
    names = classes_of(model)
    assert {"diffusers.StableDiffusionPipeline", "diffusers.AutoencoderKL", "transformers.CLIPTextModel"} <= set(names)
    assert not any("SafetyChecker" in name for name in names)


def test_by_commands_the_worker_that_began_ahead_makes_the_images(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    process = start(
        FAKE, "job=mars_batch", "job.width=64", "job.height=64", f"run_dir={tmp_path / 'run'}",
        f"job.prompts={prompts}", FAKE_PLAN_S="3",
    )  # fmt: skip
    worker = f"{tmp_path / 'run'} 0 1 --tied"
    wait_for(lambda: any(worker in " ".join(one.cmdline()) for one in left_of(tmp_path / "run")))
    (pid,) = [one.pid for one in left_of(tmp_path / "run") if worker in " ".join(one.cmdline())]
    assert not (tmp_path / "run").exists(), "there is no plan yet"
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert [event["pid"] for event in worker_events(tmp_path / "run") if event["event"] == "start"] == [pid]


def test_by_commands_an_error_of_the_front_door_or_a_kill_leaves_no_process(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    refused = front(tmp_path / "run", prompts, "job.width=60")
    assert refused.returncode == 2
    assert left_of(tmp_path / "run") == []

    def has_begun() -> bool:
        return len(left_of(tmp_path / "other")) > 1

    arguments = ("job=mars_batch", f"run_dir={tmp_path / 'other'}", f"job.prompts={prompts}")
    for number in (signal.SIGTERM, signal.SIGINT):
        kill_when(0.3, has_begun, FAKE, *arguments, number=number, FAKE_PLAN_S="30")
        wait_for(lambda: left_of(tmp_path / "other") == [])
    process = start(FAKE, *arguments, FAKE_PLAN_S="30")
    wait_for(has_begun)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: left_of(tmp_path / "other") == [])


def test_by_commands_what_makes_nothing_begins_nothing(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    assert front(tmp_path / "run", prompts).returncode == 0
    (tmp_path / "site").mkdir()
    note = f"import sys\nif 'worker' in sys.orig_argv: open({str(tmp_path / 'begun')!r}, 'w')\n"
    (tmp_path / "site/sitecustomize.py").write_text(note)
    marked = {"PYTHONPATH": f"{tmp_path / 'site'}:{Path(__file__).resolve().parents[2]}"}
    assert front(tmp_path / "run", prompts, **marked).returncode == 0
    assert front(tmp_path / "other", prompts, "dry_run=true", **marked).returncode == 0
    assert not (tmp_path / "begun").exists()
    assert front(tmp_path / "other", prompts, **marked).returncode == 0
    assert (tmp_path / "begun").exists()
