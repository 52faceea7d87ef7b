"""Files arrive in the hub's cache whole, whatever breaks on the way: against a stand-in server."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from batchgen.errors import DiskFullError, DownloadError, ModelError
from batchgen.models import transfer
from batchgen.models.hub import Repository, look
from batchgen.models.transfer import fetch, free_bytes, require_room
from tests.commands import ROOT
from tests.model_hub import COMMIT, TOKEN, Hub, model_hub, reach, reached

NAME = "unet/big.safetensors"
DATA = os.urandom(3 << 20)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with model_hub() as hub:
        reach(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(transfer, "_WAITS_S", (0.01, 0.01))
        hub.add("org/model", {NAME: DATA, "small.json": b"{}"})
        yield hub


def have(repository: Repository, name: str = NAME) -> bytes:
    return (repository.folder / name).read_bytes()


def parts(repository: Repository) -> list[Path]:
    return list(repository.cache.glob("blobs/*.incomplete"))


def test_files_are_fetched_once_and_the_revision_is_noted(hub: Hub) -> None:
    repository = look("org/model", None)
    fetch(repository, [NAME, "small.json"])
    assert have(repository) == DATA and have(repository, "small.json") == b"{}" and not parts(repository)
    assert (repository.cache / "refs" / "main").read_text() == COMMIT
    hub.asked.clear()
    fetch(repository, [NAME, "small.json"])
    assert hub.asked == []


def test_a_connection_that_breaks_goes_on_where_it_was(hub: Hub) -> None:
    hub.breaks[NAME] = [1 << 20, 0, 1 << 19]
    repository = look("org/model", None)
    fetch(repository, [NAME])
    assert have(repository) == DATA
    begins = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in hub.contents()]
    assert begins == [0, 1 << 20, 1 << 20, (1 << 20) + (1 << 19)]


def test_a_hub_that_is_busy_is_asked_again(hub: Hub) -> None:
    repository = look("org/model", None)
    hub.busy = [503, 429]
    fetch(repository, [NAME])
    assert have(repository) == DATA


def test_a_hub_that_stays_away_is_one_line_and_what_came_is_kept(hub: Hub) -> None:
    repository = look("org/model", None)
    hub.breaks[NAME] = [1 << 20, 0, 0, 0]
    with pytest.raises(DownloadError, match="model org/model cannot be downloaded: .*the same command goes on"):
        fetch(repository, [NAME])
    [part] = parts(repository)
    assert part.stat().st_size == 1 << 20 and not (repository.cache / "refs").exists()
    hub.breaks.clear()
    hub.asked.clear()
    fetch(repository, [NAME])
    assert have(repository) == DATA and hub.contents() == [(NAME, f"bytes={1 << 20}-")]


def test_a_server_that_knows_no_ranges_sends_it_all_again(hub: Hub) -> None:
    hub.whole, hub.breaks[NAME] = True, [1 << 20]
    repository = look("org/model", None)
    fetch(repository, [NAME])
    assert have(repository) == DATA


@pytest.mark.parametrize("left", [b"x" * 1000, DATA + b"x"])
def test_what_does_not_have_the_digest_is_never_used(hub: Hub, left: bytes) -> None:
    repository = look("org/model", None)
    part = repository.part(hashlib.sha256(DATA).hexdigest())
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    if len(left) < len(DATA):
        with pytest.raises(DownloadError, match=f"org/model/{NAME} did not arrive as it is on the hub"):
            fetch(repository, [NAME])
        assert not repository.folder.exists() and not parts(repository)
    fetch(repository, [NAME])
    assert have(repository) == DATA


def test_leave_that_is_not_given_is_not_asked_for_twice(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = look("org/model", None)
    hub.gated.add("org/model")
    with pytest.raises(ModelError, match="it is gated"):
        fetch(repository, [NAME])
    assert len([path for _, path, _ in hub.asked if "/resolve/" in path]) == 1
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(repository, [NAME])
    assert have(repository) == DATA


class Usage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


def test_a_disk_that_is_too_small_is_refused_before_anything_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    repository = look("org/model", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, len(DATA)))
    require_room(len(DATA))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, len(DATA) - 1))
    with pytest.raises(DiskFullError, match=r"3.0 MiB are still to be fetched.*HF_HUB_CACHE"):
        fetch(repository, [NAME])
    assert not hub.contents()


def test_two_at_once_fetch_a_file_once(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    repository = look("org/model", None)
    hub.hold.set()
    errors: list[Any] = []

    def one() -> None:
        try:
            fetch(repository, [NAME])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    said = ""
    while "waiting for it" not in said and time.monotonic() < until:
        time.sleep(0.02)
        said += capfd.readouterr().err
    hub.hold.clear()
    for thread in threads:
        thread.join()
    assert not errors and have(repository) == DATA and len(hub.contents()) == 1
    assert f"another command is fetching {NAME}: waiting for it" in said


def test_a_command_that_was_killed_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    repository = look("org/model", None)
    code = (
        "from batchgen.models.hub import look; from batchgen.models.transfer import fetch; "
        f"fetch(look('org/model', None), ['{NAME}'])"
    )
    environment = os.environ | reached(hub, tmp_path / "cache") | {"PYTHONPATH": str(ROOT)}
    hub.hold.set()
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    until = time.monotonic() + 20
    half = len(DATA) // 2
    while sum(part.stat().st_size for part in parts(repository)) < half:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.hold.clear()
    hub.asked.clear()
    fetch(repository, [NAME])
    assert have(repository) == DATA and hub.contents() == [(NAME, f"bytes={half}-")]
