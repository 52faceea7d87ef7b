"""A probe makes some batches of a job in a scratch directory, and measures them. The fake engine stands for a model."""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import BatchgenError, UserError
from batchgen.evening import trial
from batchgen.evening.trial import measure
from batchgen.launch import local
from batchgen.plan.store import Sources
from batchgen.plan.stream import plan_shards
from batchgen.prompts import find_files
from batchgen.types import Reject, Shard
from tests.builders import make_config
from tests.commands import FAKE, front, write_prompts

ROWS: list[Any] = [{"prompt": f"fox {place}", "steps": 12} for place in range(20)]
ROWS += [{"prompt": f"cat {place}", "width": 96, "guidance": 1.0} for place in range(6)]


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers have the fake engine, and scratch directories are in tmp_path/tmp."""
    monkeypatch.setattr(local, "WORKER_COMMAND", [FAKE[0], FAKE[1], "worker"])
    monkeypatch.setenv("FAKE_PASS_S", "0.002")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def probed(tmp_path: Path, say: Callable[[str], None] = lambda _: None) -> tuple[str, Any]:
    config = make_config(tmp_path, ROWS, job__batch_size=8)

    def shards() -> Iterable[Shard | Reject]:
        return plan_shards(config, find_files([config.job.prompts], tmp_path))

    sources = Sources(config, [], {"model": "fake"})
    return measure(shards, sources, [], lambda *_: 4, 0.5, say)


def test_each_size_is_measured_and_nothing_is_left(tmp_path: Path, fake: Path) -> None:
    said: list[str] = []
    kind, paces = probed(tmp_path, said.append)
    assert kind == "fake" and set(paces.sizes) == {"64x64 resident", "96x64 resident"}
    guided = paces.sizes["64x64 resident"]
    # The fake takes 2 ms for an image and step, plus what a busy machine adds; guidance counts two rows.
    assert [rows for rows, _ in guided.pass_s] == [8.0] and guided.pass_s[0][1] >= 4 * 0.002
    assert paces.start_s is not None and paces.start_s > 0.5
    assert set(paces.image_bytes) == {"64x64 png", "96x64 png"}
    # Those with all their steps count; the two steps of the other size are not cut.
    assert {name: images for name, (_, images) in paces.image_bytes.items()} == {"64x64 png": 4, "96x64 png": 8}
    assert list(fake.iterdir()) == []
    assert said == ["measuring 8 images of the job on the CPU"]


def test_whole_batches_that_take_too_long_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_WHOLE_S", 0.0)
    _, paces = probed(tmp_path)
    # The job of the other size has 2 steps, so its short batch is whole.
    assert set(paces.sizes) == {"64x64 resident", "96x64 resident"} and set(paces.image_bytes) == {"96x64 png"}


@pytest.mark.parametrize(
    ("fault", "error"), [({"FAKE_UNABLE": "0"}, UserError), ({"FAKE_POISON": "probe"}, BatchgenError)]
)
def test_a_job_that_cannot_run_ends_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Path, fault: dict[str, str], error: type[Exception]
) -> None:
    for name, value in ({"FAKE_WHY": "full"} | fault).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    with pytest.raises(error):
        probed(tmp_path, said.append)
    assert len(said) > 1 and list(fake.iterdir()) == []


def test_a_dry_run_foretells_what_the_run_then_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_KIND", "cpu")
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    unknown = json.loads(front(tmp_path / "run", prompts, "dry_run=json").stdout)
    assert unknown["time_s"] is None and unknown["disk_measured"] is False
    asked = front(tmp_path / "run", prompts, "dry_run=probe", cwd=tmp_path)
    assert asked.returncode == 0 and "time       about " in asked.stdout, asked.stderr
    assert not (tmp_path / "run").exists()
    told = json.loads(front(tmp_path / "run", prompts, "dry_run=json").stdout)
    assert told["work_s"] >= 40 * 20 * 0.002 and told["disk_measured"] is True
    made = front(tmp_path / "run", prompts)
    assert made.returncode == 0, made.stderr
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    # The flat pictures of the fake engine take a fraction of what is expected of pictures in the contact sheet.
    assert written == pytest.approx(told["disk_bytes"], rel=0.35)
    again = json.loads(front(tmp_path / "other", prompts, "dry_run=json").stdout)
    assert again["work_s"] >= 40 * 20 * 0.002 and again["time_s"] > again["work_s"]
    done = json.loads(front(tmp_path / "run", prompts, "dry_run=json").stdout)
    assert (done["work_s"], done["disk_bytes"], done["shards_left"]) == (0, 0, 0)


def test_a_gpu_that_is_only_assumed_cannot_be_measured(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 4)
    refused = front(tmp_path / "run", prompts, "dry_run=probe", "memory.assume_vram=8GiB")
    assert refused.returncode == 2 and "leave out memory.assume_vram" in refused.stderr
