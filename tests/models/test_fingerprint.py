"""A model is known by what a run loads of it, and by nothing else that lies in its folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen.models.find import ModelFiles
from batchgen.models.fingerprint import fingerprint_model
from tests.earlier import first_fingerprint

GIB = 1 << 30
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def write_model(folder: Path) -> Path:
    index = {"_class_name": "X", "scheduler": ["diffusers", "S"], "unet": ["diffusers", "U"],
             "tokenizer": ["transformers", "T"], "safety_checker": ["stable_diffusion", "C"]}  # fmt: skip
    files = {"model_index.json": index, "scheduler/scheduler_config.json": {}, "unet/config.json": {},
             "tokenizer/vocab.json": {}}  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(3 * GIB)  # sparse: reading it whole would take seconds
    return folder


def set_byte(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        file.write(b"x")


def put(path: Path, text: str = "{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CHANGES: dict[str, Callable[[Path], object]] = {
    "index": lambda model: put(model / "model_index.json", (model / "model_index.json").read_text() + " "),
    "first weight": lambda model: set_byte(model / WEIGHTS, 0),
    "last weight": lambda model: set_byte(model / WEIGHTS, -1),
    "size of the weights": lambda model: os.truncate(model / WEIGHTS, 3 * GIB + 1),
    "scheduler": lambda model: put(model / "scheduler/scheduler_config.json", "[]"),
    "vocabulary": lambda model: put(model / "tokenizer/vocab.json", "[]"),
    "file that a tokenizer reads added": lambda model: put(model / "tokenizer/added_tokens.json"),
    "file gone": lambda model: (model / "tokenizer/vocab.json").unlink(),
}
ADDED = (
    ".DS_Store", "README.md", ".git/refs/tags/v1", ".cache/huggingface/download/model_index.json.metadata",
    "samples/one.png", "LICENSE", "unet/README", "unet/diffusion_pytorch_model.fp16.safetensors",
    "v1-5-pruned.safetensors", "safety_checker/config.json",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_has_another_fingerprint(tmp_path: Path, change: str) -> None:
    model = write_model(tmp_path / "model")
    before, earlier = fingerprint_model(ModelFiles(model)), first_fingerprint(model)
    assert before.startswith("2:")
    CHANGES[change](model)
    assert fingerprint_model(ModelFiles(model)) != before
    assert fingerprint_model(ModelFiles(model), earlier) != earlier


@pytest.mark.parametrize("name", ADDED)
def test_a_file_that_is_not_loaded_changes_nothing(tmp_path: Path, name: str) -> None:
    model = write_model(tmp_path / "model")
    before, earlier = fingerprint_model(ModelFiles(model)), first_fingerprint(model)
    put(model / name)
    os.utime(model / "model_index.json", (1, 1))
    assert fingerprint_model(ModelFiles(model)) == before
    if name not in ("unet/README", "unet/diffusion_pytorch_model.fp16.safetensors"):
        assert fingerprint_model(ModelFiles(model), earlier) == earlier
    assert fingerprint_model(ModelFiles(model.rename(tmp_path / "moved")), before) == before


def test_a_plan_of_the_first_version_is_compared_by_the_first_algorithm(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    put(model / ".git/HEAD")  # read by that one, though hidden
    put(model / "LICENSE")
    earlier = first_fingerprint(model)
    assert fingerprint_model(ModelFiles(model), earlier) == earlier
    assert fingerprint_model(ModelFiles(model), "0" * 64) == earlier
    assert fingerprint_model(ModelFiles(model), "2:other") == fingerprint_model(ModelFiles(model))


def test_a_variant_and_a_safety_checker_are_of_the_model_only_where_they_are_asked_for(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    plain = fingerprint_model(ModelFiles(model))
    put(model / "unet/diffusion_pytorch_model.fp16.safetensors")
    put(model / "safety_checker/config.json")
    put(model / "safety_checker/model.safetensors")
    others = ModelFiles(model, "fp16"), ModelFiles(model, safety_checker=True)
    assert len({plain, *map(fingerprint_model, others)}) == 3
    assert fingerprint_model(ModelFiles(model)) == plain
