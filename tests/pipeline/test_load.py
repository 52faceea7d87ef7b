"""Loading a pipeline from its folder."""

import json
import shutil

import pytest

pytest.importorskip("torch")

import torch

from batchgen.errors import ModelError
from batchgen.models.find import ModelFiles
from batchgen.pipeline.load import load_pipeline
from tests.pipeline.small_models import save


def test_a_pipeline_has_the_dtype_and_the_scheduler_that_were_asked_for(folder):
    pipe = load_pipeline(ModelFiles(folder), "ddim", "bf16")
    assert pipe.unet.dtype == torch.bfloat16 and type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert getattr(pipe, "safety_checker", None) is None


def test_weights_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    model = save("sd15", tmp_path / "model")
    (model / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError) as caught:
        load_pipeline(ModelFiles(model), "model", "fp32")
    assert "\n" not in str(caught.value)


def test_a_model_whose_scheduler_ignores_seeds_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(save("sd15", tmp_path / "sd15"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverSDEScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="ignores per-image seeds: set job.scheduler"):
        load_pipeline(ModelFiles(folder), "model", "fp32")
