"""`python -m batchgen.fetch`: what a job needs is in the cache before the night. Against a stand-in hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.fetch import main
from tests.commands import REAL, ROOT, front, samples, verify, write_prompts
from tests.model_hub import COMMIT, TOKEN, Hub, model_hub, reached
from tests.models.test_checkpoint import write as write_tensors
from tests.models.test_lora import write
from tests.pipeline.small_models import save

LATER = "f" * 40


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd15", tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def hub(small: Path) -> Iterator[Hub]:
    with model_hub() as hub:
        hub.add("org/small", small)
        yield hub


def fetch(hub: Hub, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batchgen.fetch", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | reached(hub, folder / "cache") | environment,
    )


@pytest.mark.slow
def test_a_job_is_fetched_and_then_made_without_network(hub: Hub, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.txt", 4)
    done = fetch(hub, tmp_path, f"job.prompts={prompts}", "model.path=org/small")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    offline = reached(hub, tmp_path / "cache") | {"HF_HUB_OFFLINE": "1"}
    made = front(tmp_path / "run", prompts, "model.path=org/small", "job.steps=2", command=REAL, **offline)
    assert made.returncode == 0, made.stderr
    assert verify(tmp_path / "run").returncode == 0
    about = json.loads(samples(tmp_path / "run")["000000000000-00.json"])
    assert (about["model"], about["revision"]) == ("org/small", COMMIT)


def test_a_run_keeps_its_commit_also_where_its_model_is_not_in_the_cache(hub: Hub, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.txt", 4)
    settings = ("model.path=org/small", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}")
    assert fetch(hub, tmp_path, *settings).returncode == 0
    hub.asked.clear()
    made = front(tmp_path / "run", prompts, "model.path=org/small", **reached(hub, tmp_path / "cache"))
    assert made.returncode == 0 and not hub.contents(), made.stderr
    hub.asked.clear()
    hub.commits = {"main": LATER, "old": COMMIT}
    planned = fetch(hub, tmp_path, *settings)
    assert f"was planned with model.revision={COMMIT}" in planned.stdout and hub.asked == []
    prompts.write_text(prompts.read_text() + "one more\n")
    elsewhere = reached(hub, tmp_path / "empty")
    resumed = front(tmp_path / "run", prompts, "model.path=org/small", "extend=true", **elsewhere)
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "empty" / "models--org--small" / "snapshots" / COMMIT / "unet").is_dir()


def test_what_is_here_is_said_and_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    rehearsed = fetch(hub, tmp_path, "model.path=org/small", "dry_run=true")
    assert rehearsed.returncode == 0 and "dry run: nothing was written" in rehearsed.stdout
    assert f"model.path: org/small (main, {COMMIT}): " in rehearsed.stdout and " to fetch into " in rehearsed.stdout
    assert list(tmp_path.iterdir()) == []
    first = fetch(hub, tmp_path, "model.path=org/small")
    assert first.returncode == 0 and f"to keep to this revision: model.revision={COMMIT}" in first.stdout, first.stderr
    assert "safety_checker/model.safetensors" not in hub.files(), "no run loads it unless it is asked to"
    hub.asked.clear()
    again = fetch(hub, tmp_path, "model.path=org/small")
    assert again.returncode == 0 and "all in the cache" in again.stdout and not hub.contents()


def test_mistakes_are_one_line_each_and_end_with_the_code_of_their_kind(hub: Hub, tmp_path: Path) -> None:
    def refused(code: int, *arguments: str, **environment: str) -> str:
        done = fetch(hub, tmp_path, *arguments, **environment)
        assert done.returncode == code and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "cache" / "models--org--small").exists()
        return done.stderr

    assert "did you mean org/small?" in refused(2, "model.path=org/smal")
    assert "the hub cannot be reached" in refused(75, "model.path=org/small", HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE is set" in refused(2, "model.path=org/small", HF_HUB_OFFLINE="1")
    hub.gated.add("org/small")
    assert "it is gated; accept its terms at" in refused(2, "model.path=org/small")
    assert fetch(hub, tmp_path, "model.path=org/small", HF_TOKEN=TOKEN).returncode == 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.path=lora.safetensors", "model.path=lora.safetensors is a LoRA, not a model"),
        ("model.path=empty.safetensors", "empty.safetensors is empty"),
        ("model.vae=lora.safetensors", "model.vae=lora.safetensors is a LoRA, not a model"),
        ("model.lora=nosuch.safetensors", "LoRA nosuch.safetensors: no such file"),
        ("model.lora=empty.safetensors", "empty.safetensors is empty"),
        ("model.lora=a/b/c.ckpt", "LoRA a/b/c.ckpt is pickled"),
        ("model.embeddings=nosuch.safetensors", "there is no file nosuch.safetensors"),
        ("model.embeddings=lora.safetensors", "lora.safetensors has vectors of 0 numbers"),
        ("model.base=tiny", "leave it out"),
        ("model.vae=part.safetensors", "part.safetensors cannot be unpacked: its vae "),
    ],
)
def test_what_is_here_and_would_be_refused_by_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, told: str
) -> None:
    write(tmp_path / "lora.safetensors", "unet.x.lora_A.weight")
    (tmp_path / "empty.safetensors").touch()
    write_tensors(tmp_path / "part.safetensors", {f"decoder.conv_{end}.weight": [32, 8, 3, 3] for end in ("in", "out")})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fetch", "job=mars_batch", setting])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and len(said.err.splitlines()) == 1
    assert told in said.err and "is here" not in said.out


def test_a_lora_that_is_fetched_is_looked_at(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/loras", {"vae.safetensors": write(tmp_path / "x.safetensors", "control_model.x").read_bytes()})
    done = fetch(hub, tmp_path, "model.path=tiny", "model.lora=org/loras/vae.safetensors")
    assert done.returncode == 2 and "holds no LoRA, but a ControlNet" in done.stderr


def test_a_mistyped_path_is_told_from_what_the_network_lacks(hub: Hub, tmp_path: Path) -> None:
    away = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = fetch(hub, tmp_path, "model.lora=no/where/x.safetensors", **away)
    assert done.returncode == 75 and done.stderr.endswith("; nor is there a file no/where/x.safetensors here\n")
    assert "nor is there a folder org/smol here" in fetch(hub, tmp_path, "model.path=org/smol").stderr


def test_a_file_that_is_damaged_on_the_hub_is_told_at_once(hub: Hub, tmp_path: Path) -> None:
    files: dict[str, Any] = hub.models["org/small"]
    files["vae/diffusion_pytorch_model.safetensors"] = files["vae/diffusion_pytorch_model.safetensors"][:-100]
    done = fetch(hub, tmp_path, "model.path=org/small")
    assert done.returncode == 2 and "is cut off" in done.stderr
