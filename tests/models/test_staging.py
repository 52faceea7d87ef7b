"""The model's copy on a machine's own disk: made once, whole or not at all, and never the reason why a worker fails."""

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.errors import StoppedError
from batchgen.events import EventLog, read_events
from batchgen.models import staging
from batchgen.models.find import locate
from batchgen.models.fingerprint import fingerprint_model
from batchgen.models.staging import FOLDER, Staged, scratch_folder, stage
from batchgen.places import models_dir
from batchgen.plan.store import Plan
from batchgen.worker.loop import load_engine
from tests.builders import plan_run
from tests.commands import front, verify, worker_events, write_prompts


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A run of a model that lies beside scratch, which counts as another disk."""
    shutil.copytree(models_dir() / "tiny", tmp_path / "model")
    (tmp_path / "model" / "notes.ckpt").write_text("not loaded")
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(staging, "_device", lambda path: int(scratch in (path, *path.parents)))
    scratch.mkdir()
    return plan_run(tmp_path, model__path=str(tmp_path / "model"), launch__scratch=str(scratch))


def staged(plan: Plan, stop: threading.Event | None = None) -> Staged:
    return stage(plan, EventLog(plan.run.worker_log("w")), stop or threading.Event())


def events(plan: Plan) -> list[dict[str, Any]]:
    return list(read_events(plan.run.worker_log("w")))


def copy_of(plan: Plan) -> Path:
    planned = str(plan.recipe["model"]).removeprefix("2:")
    return Path(str(plan.config.launch.scratch)) / FOLDER / planned


def test_the_files_that_are_loaded_are_copied_once(plan: Plan) -> None:
    first = staged(plan)
    copy = copy_of(plan)
    assert first.plan.config.model.path == str(copy)
    assert first.facts["model"] == str(copy) and first.facts["staging_s"] >= 0
    assert fingerprint_model(locate(first.plan.config.model)) == plan.recipe["model"]
    assert not (copy / "notes.ckpt").exists()
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    shutil.rmtree(plan.planned.model.path)
    assert staged(plan).plan == first.plan
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    assert [event["event"] for event in events(plan)] == ["staging", "staged", "staged"]
    assert sorted(path.name for path in copy.parent.iterdir()) == [copy.name, f"{copy.name}.lock"]


def test_a_model_that_is_put_together_is_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(models_dir() / "tiny" / "vae", tmp_path / "vae")
    [weights] = (tmp_path / "vae").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    other = plan_run(
        tmp_path, run_dir=str(tmp_path / "other"), model__path=str(tmp_path / "model"),
        model__vae=str(tmp_path / "vae"), launch__scratch=plan.config.launch.scratch,
    )  # fmt: skip
    assert other.recipe["model"] != plan.recipe["model"]
    first = staged(other)
    model = first.plan.config.model
    assert (model.path, model.vae) == (str(copy_of(other)), None)
    shutil.rmtree(tmp_path / "vae")
    assert fingerprint_model(locate(model)) == other.recipe["model"]
    assert not any(path.is_symlink() for path in copy_of(other).rglob("*"))


def test_an_engine_is_loaded_from_the_copy(plan: Plan) -> None:
    there = staged(plan).plan
    shutil.rmtree(plan.planned.model.path)
    assert load_engine(there).device_kind == "cpu"


def test_links_of_a_cache_become_files(plan: Plan) -> None:
    model = Path(plan.planned.model.path)
    for number, path in enumerate([path for path in model.rglob("*") if path.is_file()]):
        blob = model.parent / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    copy = Path(staged(plan).plan.config.model.path)
    assert copy == copy_of(plan)
    assert not [path for path in copy.rglob("*") if path.is_symlink()]


def remove_weights(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def cut_weights(copy: Path) -> None:
    os.truncate(copy / "unet" / "diffusion_pytorch_model.safetensors", 100)


def empty(copy: Path) -> None:
    shutil.rmtree(copy)
    copy.mkdir()


@pytest.mark.parametrize("harm", [remove_weights, cut_weights, empty])
def test_a_copy_that_is_not_whole_is_made_again(plan: Plan, harm: Callable[[Path], None]) -> None:
    staged(plan)
    harm(copy_of(plan))
    (copy_of(plan).parent / f"{copy_of(plan).name}.{'a' * 32}" / "unet").mkdir(parents=True)  # of a killed copier
    assert staged(plan).facts["model"] == str(copy_of(plan))
    assert fingerprint_model(locate(staged(plan).plan.config.model)) == plan.recipe["model"]
    assert len(list(copy_of(plan).parent.iterdir())) == 2


def full(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr("batchgen.models.staging.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))


def full_at_last(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchgen.models.staging.os.fsync", fail)


def same_disk(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(staging, "_device", lambda path: 1)


def of_another(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    copy_of(plan).parent.mkdir()
    monkeypatch.setattr("batchgen.models.staging.os.geteuid", lambda: 12345)


def changed(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    with (Path(plan.planned.model.path) / "unet" / "config.json").open("a") as file:
        file.write("\n")


def a_file(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    shutil.rmtree(str(plan.config.launch.scratch))
    Path(str(plan.config.launch.scratch)).write_text("")


@pytest.mark.parametrize(
    ("arrange", "why"),
    [
        (full, "the model takes .* has only 0.0 MiB free"),
        (full_at_last, "No space left"),
        (same_disk, "on the same file system as the model"),
        (of_another, "belongs to another user"),
        (changed, "not the one that this run was planned with"),
        (a_file, "File exists"),
    ],
)
def test_where_there_can_be_no_copy_the_model_is_loaded_from_where_it_is(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, arrange: Callable[..., None], why: str
) -> None:
    arrange(monkeypatch, plan)
    there, facts = staged(plan)
    assert there is plan
    assert list(facts) == ["not_staged"] and re.search(why, facts["not_staged"]), facts
    assert events(plan)[-1]["event"] == "not_staged"
    assert not copy_of(plan).exists()
    assert [path for path in copy_of(plan).parent.parent.rglob(f"{copy_of(plan).name}.*") if path.is_dir()] == []


@pytest.mark.parametrize("scratch", ["$NOT_SET_ANYWHERE/x", "relative"])
def test_a_folder_that_means_nothing_here_is_told(plan: Plan, scratch: str) -> None:
    plan.config.launch.scratch = scratch
    assert scratch in staged(plan).facts["not_staged"]


def test_variables_have_the_values_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/local/17")
    monkeypatch.setenv("HOME", "/home/me")
    assert scratch_folder("$TMPDIR/x") == scratch_folder("${TMPDIR}/x") == Path("/local/17/x")
    assert scratch_folder("~/scratch") == Path("/home/me/scratch")


def test_a_run_of_an_earlier_fingerprint_keeps_its_model(plan: Plan) -> None:
    plan.recipe["model"] = "f" * 64
    assert "earlier version" in staged(plan).facts["not_staged"]


@pytest.fixture
def held(plan: Plan) -> Iterator[int]:
    """The lock on the copy, as another process of this machine holds it."""
    copy_of(plan).parent.mkdir(parents=True)
    fd = os.open(copy_of(plan).parent / f"{copy_of(plan).name}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


def test_while_another_copies_a_worker_waits_and_then_uses_the_copy(
    plan: Plan, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_POLL_S", 0.02)
    found: list[Staged] = []
    waiter = threading.Thread(target=lambda: found.append(staged(plan)))
    waiter.start()
    time.sleep(0.2)
    assert not found and not copy_of(plan).exists()
    made = copy_of(plan).with_name("elsewhere")
    shutil.copytree(plan.planned.model.path, made)
    made.rename(copy_of(plan))
    marker = copy_of(plan).stat().st_ino
    fcntl.flock(held, fcntl.LOCK_UN)  # as the system does for a process that ends or is killed
    waiter.join(10)
    assert found[0].facts["model"] == str(copy_of(plan))
    assert copy_of(plan).stat().st_ino == marker, "it was not made twice"


def test_stop_ends_the_wait_and_the_copying(plan: Plan, held: int) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError, match="same command goes on"):
        staged(plan, stop)
    fcntl.flock(held, fcntl.LOCK_UN)
    with pytest.raises(StoppedError):
        staged(plan, stop)
    assert [path.name for path in copy_of(plan).parent.iterdir()] == [f"{copy_of(plan).name}.lock"]


def test_nothing_happens_without_scratch(plan: Plan) -> None:
    plan.config.launch.scratch = None
    assert staged(plan) == (plan, {})
    assert events(plan) == []


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of a real other file system."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == models_dir().stat().st_dev:
        pytest.skip("there is no other file system")
    folder = shm / f"batchgen-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_workers_of_a_run_share_one_copy(tmp_path: Path, other_disk: Path) -> None:
    prompts = write_prompts(tmp_path / "p.txt", 32)
    given = ["launch.workers=3", "launch.scratch=$BATCHGEN_TEST_DISK/new", "job.batch_size=4"]
    done = front(tmp_path / "run", prompts, *given, BATCHGEN_TEST_DISK=str(other_disk), FAKE_STEP_S="0.1")
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "run").returncode == 0
    loaded = [event for event in worker_events(tmp_path / "run") if event["event"] == "loaded"]
    [folder] = {event["model"] for event in loaded}
    assert Path(folder).parent == other_disk / "new" / FOLDER and len(loaded) > 1
    assert json.loads((Path(folder) / "model_index.json").read_text())["_class_name"]
    assert len(list(Path(folder).parent.iterdir())) == 2
