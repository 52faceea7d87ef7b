"""Unpacking: once, under a lock, with enough room, and never half. The conversion itself is faked here."""

import json
import shutil
import sys
from collections import namedtuple

import pytest

from batchgen.errors import BatchgenError, ModelError
from batchgen.models import unpack
from batchgen.models.checkpoint import look
from batchgen.models.unpack import Piece, unpacked
from tests.models.test_checkpoint import SD, write

ANSWER = "print(json.dumps({'sha256': 'ab'}))"


def convert_by(monkeypatch, code):
    monkeypatch.setattr(unpack, "CONVERT_COMMAND", [sys.executable, "-c", f"import json, sys; {code}"])


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    convert_by(monkeypatch, ANSWER)
    return look("model.path", write(tmp_path / "a.safetensors", SD))


def pieces(checkpoint, **config):
    prefix, tensors = checkpoint.parts["denoiser"]
    return {"unet": Piece("diffusers", "UNet2DConditionModel", config, prefix, sorted(tensors))}


def made(checkpoint, parts, more):
    folder = unpacked(checkpoint, parts, more, make=True)
    assert folder is not None
    return folder


def test_a_file_is_unpacked_once_and_what_it_came_from_is_recorded(checkpoint, monkeypatch, capsys):
    assert unpacked(checkpoint, pieces(checkpoint), {}, make=False) is None
    folder = made(checkpoint, pieces(checkpoint), {"tokenizer/merges.txt": b"a b"})
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{checkpoint.path} is unpacked once, which takes 0.0 MiB of disk" in told
    assert (folder / "tokenizer/merges.txt").read_bytes() == b"a b"
    source = json.loads((folder / "source.json").read_text())
    assert (source["file"], source["sha256"], source["parts"]) == (str(checkpoint.path), "ab", ["unet"])
    convert_by(monkeypatch, "sys.exit(1)")
    assert unpacked(checkpoint, pieces(checkpoint), {"tokenizer/merges.txt": b"a b"}, make=True) == folder
    assert capsys.readouterr().err == ""


def test_a_trial_unpacks_nothing_and_what_is_good_is_tried_once(checkpoint, monkeypatch, tmp_path):
    convert_by(monkeypatch, "print(json.dumps({'problem': 'its unet lacks the weight x'}))")
    with pytest.raises(ModelError, match="a.safetensors cannot be unpacked: its unet lacks the weight x"):
        unpacked(checkpoint, pieces(checkpoint), {}, make=None)
    convert_by(monkeypatch, "assert json.load(sys.stdin)['is_trial']; print('{}')")
    assert unpacked(checkpoint, pieces(checkpoint), {}, make=None) is None
    convert_by(monkeypatch, "sys.exit(1)")
    assert unpacked(checkpoint, pieces(checkpoint), {}, make=None) is None
    assert not (tmp_path / "cache" / "models").exists()


def test_other_settings_are_another_folder(checkpoint):
    folders = {
        unpacked(checkpoint, pieces(checkpoint), {}, make=True),
        unpacked(checkpoint, pieces(checkpoint, layers_per_block=1), {}, make=True),
        unpacked(checkpoint, pieces(checkpoint), {"scheduler/scheduler_config.json": b"{}"}, make=True),
    }
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (
            "print(json.dumps({'problem': 'its unet lacks 3 weights'}))",
            ModelError,
            "cannot be unpacked: its unet lacks",
        ),
        ("sys.exit('no memory')", BatchgenError, "could not be unpacked: no memory"),
    ],
)
def test_what_fails_leaves_nothing(checkpoint, monkeypatch, tmp_path, code, error, said):
    convert_by(monkeypatch, code)
    with pytest.raises(error, match=said):
        unpacked(checkpoint, pieces(checkpoint), {}, make=True)
    assert [path for path in (tmp_path / "cache/models").iterdir() if path.suffix != ".lock"] == []


def test_without_room_nothing_is_begun(checkpoint, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(ModelError, match="has only 0.0 MiB free: make room, or set BATCHGEN_CACHE"):
        unpacked(checkpoint, pieces(checkpoint), {}, make=True)


def test_what_a_killed_command_or_a_clean_up_left_is_replaced(checkpoint):
    folder = made(checkpoint, pieces(checkpoint), {})
    (folder / "source.json").unlink()
    left = folder.with_name(f"{folder.name}.0.draft")
    left.mkdir()
    assert unpacked(checkpoint, pieces(checkpoint), {}, make=False) is None
    assert unpacked(checkpoint, pieces(checkpoint), {}, make=True) == folder
    assert (folder / "source.json").is_file() and not left.exists()
