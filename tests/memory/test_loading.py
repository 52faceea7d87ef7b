"""What loading takes of the host's memory: by the headers of files, and as a process really takes it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from batchgen.errors import MemoryNeededError
from batchgen.machine.host import Room
from batchgen.memory.host_bytes import CPU_PROCESS_BYTES, Parts
from batchgen.memory.loading import made_bytes, refuse_to_load
from batchgen.models.find import ModelFiles
from batchgen.places import models_dir
from tests.memory.cards import MIB

TINY = ModelFiles(models_dir() / "tiny")


def weights(part: str, size: int, dims: int | None = None) -> int:
    files = (TINY.folder / part).glob("*.safetensors")
    found = [one for path in files for one in load_file(path).values() if one.is_floating_point()]
    return sum(one.numel() for one in found if dims in (None, one.dim())) * size


def test_a_dtype_that_the_files_have_takes_nothing_and_another_one_all(tmp_path: Path) -> None:
    kinds = {one.dtype for path in TINY.folder.rglob("*.safetensors") for one in load_file(path).values()}
    own = "fp16" if torch.float16 in kinds else "fp32"
    size = {"fp16": 2, "fp32": 4, "bf16": 2}
    assert sum(made_bytes(TINY, own)) in (0, weights("vae", 4)), "a VAE that wants fp32 is made fp32"
    for other in {"fp32", "bf16"} - {own}:
        parts = Parts(*(weights(part, size[other]) for part in ("text_encoder", "unet", "vae")))
        assert made_bytes(TINY, other) == parts


def test_another_memory_format_makes_the_weights_of_convolutions_anew() -> None:
    kinds = {one.dtype for path in TINY.folder.rglob("*.safetensors") for one in load_file(path).values()}
    own, size = ("fp16", 2) if torch.float16 in kinds else ("fp32", 4)
    assert made_bytes(TINY, own, channels_last=True).denoiser == weights("unet", size, dims=4)


def test_a_host_that_cannot_load_the_model_is_refused() -> None:
    other = "bf16"
    least = CPU_PROCESS_BYTES + sum(made_bytes(TINY, other))
    refuse_to_load(TINY, other, False, Room(least, 0))
    with pytest.raises(MemoryNeededError, match=r"loading the model in bf16 takes at least 0\.\d\d GiB"):
        refuse_to_load(TINY, other, False, Room(least - 1, 0))
    with pytest.raises(MemoryNeededError):
        refuse_to_load(TINY, other, True, Room(least, 0))


LOADING = """
import sys, threading
from pathlib import Path
from batchgen.models.find import ModelFiles
from batchgen.pipeline.load import load_pipeline
import diffusers, torch

def anonymous():
    return next(int(one.split()[1]) for one in open("/proc/self/status") if one.startswith("RssAnon")) << 10

load_pipeline(ModelFiles(Path(sys.argv[2])), "model", sys.argv[3])  # imports what is imported late
before = anonymous()
pipe = load_pipeline(ModelFiles(Path(sys.argv[1])), "model", sys.argv[3])
print(anonymous() - before)
"""


@pytest.mark.slow
def test_a_process_takes_what_is_said(tmp_path: Path) -> None:
    """The tiny model with more words, so that its text encoder has 300 MB in fp32."""
    model = inflated(tmp_path / "model")
    for dtype in ("fp32", "bf16"):
        command = [sys.executable, "-c", LOADING, model.folder, TINY.folder, dtype]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        said = sum(made_bytes(model, dtype))
        assert int(done.stdout) == pytest.approx(said, abs=60 * MIB), dtype


def inflated(folder: Path) -> ModelFiles:
    shutil.copytree(TINY.folder, folder, symlinks=False)
    [path] = (folder / "text_encoder").glob("*.safetensors")
    config: dict[str, Any] = json.loads((folder / "text_encoder" / "config.json").read_bytes())
    tensors = {name: one.float() if one.is_floating_point() else one for name, one in load_file(path).items()}
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    config["vocab_size"] = 75_000_000 // config["hidden_size"]
    rows = torch.zeros(config["vocab_size"], config["hidden_size"])
    rows[: len(tensors[name])] = tensors[name]
    save_file(tensors | {name: rows}, path, metadata={"format": "pt"})
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    return ModelFiles(folder)
