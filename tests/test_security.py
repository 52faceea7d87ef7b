"""What strangers may hand to batchgen: models, prompt files, configurations, run directories. None runs or leaks."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from batchgen.places import models_dir
from tests.commands import FAKE, REAL, front, run, verify, write_prompts

TOKEN = "hf_" + "Secret1234567890" * 2


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 20)


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(models_dir() / "tiny", tmp_path / "model")


def refused(done, *words):
    """It ended as a user's mistake does, in one line that has these words."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_pickled_weights_are_refused(tmp_path, prompts, model):
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refused(front(tmp_path / "run", prompts, f"model.path={model}"), "pickled weights only")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["unet", "pipeline"])
def test_code_that_comes_with_a_model_is_not_run(tmp_path, prompts, model, part):
    trap = tmp_path / "sprung"
    (model / "unet" / "evil.py").write_text(f"open({str(trap)!r}, 'w')\nclass Net: pass\n")
    (model / "pipeline.py").write_text(f"open({str(trap)!r}, 'w')\nclass Pipe: pass\n")
    index = json.loads((model / "model_index.json").read_text())
    index |= {"unet": ["evil", "Net"]} if part == "unet" else {"_class_name": ["pipeline", "Pipe"]}
    (model / "model_index.json").write_text(json.dumps(index))
    done = front(tmp_path / "run", prompts, f"model.path={model}", command=REAL)
    refused(done, str(model))
    assert not trap.exists()


@pytest.mark.parametrize(
    "override", ["+job._target_=os.system", "+_target_=os.system", "+job.prompts={_target_: os.system, command: id}"]
)
def test_a_configuration_names_no_code(tmp_path, prompts, override):
    refused(front(tmp_path / "run", prompts, override))
    assert not (tmp_path / "run").exists()


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_token_of_the_environment_is_written_nowhere(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, HF_TOKEN=TOKEN, HUGGING_FACE_HUB_TOKEN=TOKEN)
    assert done.returncode == 0
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in data for data in contents(tmp_path / "run").values())


def test_a_run_holds_data_alone_and_nothing_pickled(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    endings = {path.suffix for path in contents(tmp_path / "run")}
    of_the_end = {".html", ".md", ".parquet", ".png"}  # what people and readers of data sets look at
    assert endings <= {".yaml", ".json", ".jsonl", ".tar", ".log", ".txt"} | of_the_end
    assert not any(data[:1] == b"\x80" for data in contents(tmp_path / "run").values())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 20 prompts, beside its prompt file."""
    folder = tmp_path_factory.mktemp("made")
    front(folder / "run", write_prompts(folder / "prompts.txt", 40), "job.limit=20")
    return folder / "run"


@pytest.mark.parametrize(
    "name",
    [
        "shards/000000.tar", "shards/000000.json", "logs/memory/000000.jsonl", "leases/000000.json", "index.json",
        "policies/fake-64x64.json",
    ],
)  # fmt: skip
def test_a_planted_link_leads_nowhere(tmp_path, made, name):
    # Planned, interrupted before anything is made
    outside, prompts = tmp_path / "outside", made.with_name("prompts.txt")
    outside.write_text("do not touch")
    shutil.copytree(made, tmp_path / "run")
    for part in ("shards", "logs", "leases", "policies", "work"):
        shutil.rmtree(tmp_path / "run" / part)
        (tmp_path / "run" / part).mkdir()
    (tmp_path / "run" / "index.json").unlink()
    planted = tmp_path / "run" / name
    planted.parent.mkdir(exist_ok=True)
    planted.symlink_to(outside)
    done = front(tmp_path / "run", prompts, "job.limit=20", "launch.restarts=0")
    assert outside.read_text() == "do not touch"
    if done.returncode == 0:  # then it was replaced, or nothing needs it
        assert verify(tmp_path / "run").returncode == 0
    else:
        assert 1 <= len(done.stderr.splitlines()) <= 5
        assert "Traceback" not in done.stderr


def test_what_a_terminal_would_obey_is_not_shown_to_it(tmp_path):
    rows = tmp_path / "p.jsonl"
    rows.write_text('{"prompt": "a\\u001b[2Jfox", "key": "\\u001b[31m"}\n{"prompt": "a hen"}\n')
    shown = run(FAKE, "job=mars_batch", f"job.prompts={rows}", f"run_dir={tmp_path / 'run'}", "dry_run=true")
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout + shown.stderr
    assert "rejects    1" in shown.stdout


def test_a_run_is_not_for_others_to_write(tmp_path, prompts):
    old = os.umask(0o022)
    try:
        front(tmp_path / "run", prompts)
    finally:
        os.umask(old)
    assert not any(path.stat().st_mode & 0o022 for path in (tmp_path / "run").rglob("*"))


@pytest.mark.slow
def test_diffusers_is_imported_with_the_switch_against_a_models_code_on():
    code = "import batchgen.pipeline.engine, diffusers.utils.constants as c; print(c.DIFFUSERS_DISABLE_REMOTE_CODE)"
    environment = {name: value for name, value in os.environ.items() if name != "DIFFUSERS_DISABLE_REMOTE_CODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["True"], done.stderr
