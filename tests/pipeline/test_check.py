"""What of a model is known before it is loaded: its weights by name and shape, and the steps of its scheduler."""

import json
import re
import shutil

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

from batchgen.errors import ModelError
from batchgen.models.find import ModelFiles
from batchgen.pipeline.check import check, working_steps
from tests.pipeline.small_models import save, save_with_checker

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {kind: save(kind, folder / kind) for kind in ("sd15", "sdxl")}
    return made | {"checked": save_with_checker(folder / "checked", False)}


def edit_weights(folder, name, change):
    path = folder / name
    save_file({key: value.contiguous() for key, value in change(load_file(path)).items()}, path)


def edit_json(folder, name, **changes):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))


def checked(folder, scheduler="model", variant=None, safety_checker=False, steps=(2, 30)):
    return check(ModelFiles(folder, variant, safety_checker), scheduler, list(steps), [])


def of_old_transformers(state):
    """The names that CLIP had when Stable Diffusion was published: a prefix, and a buffer among the weights."""
    named = {key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}": value
             for key, value in state.items()}  # fmt: skip
    return named | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def of_old_diffusers(state):
    """The names that the VAE's attention had in the first models, and in fine-tunes of them."""

    def old(key):
        found = re.fullmatch(r"(.*\.attentions\.0\.)(to_q|to_k|to_v|to_out\.0)\.(weight|bias)", key)
        return f"{found[1]}{OLD_ATTENTION[found[2]]}.{found[3]}" if found else key

    renamed = {old(key): value for key, value in state.items()}
    assert len(renamed.keys() - state.keys()) == 16  # encoder and decoder
    return renamed


def published_sd15(folder):
    edit_weights(folder, TEXT, of_old_transformers)
    edit_weights(folder, VAE, of_old_diffusers)
    return "sd15"


def published_sdxl(folder):
    edit_weights(folder, TEXT, of_old_transformers)
    edit_weights(folder, "text_encoder_2/model.safetensors", of_old_transformers)
    return "sdxl"


@pytest.mark.parametrize("kind, publish", [("sd15", published_sd15), ("sdxl", published_sdxl)])
def test_models_under_the_names_of_their_time_pass_without_a_word(models, tmp_path, kind, publish):
    folder = tmp_path / "model"
    shutil.copytree(models[kind], folder)
    assert checked(folder)["told"] == []
    publish(folder)
    assert checked(folder)["told"] == []


def test_a_safety_checker_is_checked_where_it_is_loaded(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["checked"], folder)
    assert checked(folder, safety_checker=True)["told"] == []
    edit_weights(folder, "safety_checker/model.safetensors", lambda state: dict(list(state.items())[1:]))
    assert checked(folder)["told"] == []
    with pytest.raises(ModelError, match="safety_checker lacks the weight"):
        checked(folder, safety_checker=True)


def without(part):
    return lambda state: {key: value for key, value in state.items() if part not in key}


def with_one_more(state):
    return state | {"one_more.weight": torch.zeros(1)}


def under_a_prefix(state):
    return {f"cond_stage_model.{key}": value for key, value in state.items()}


def cut_to_one(part):
    return lambda state: {key: value[:1] if part in key else value for key, value in state.items()}


@pytest.mark.parametrize(
    "name, change, words",
    [
        (TEXT, without("final_layer_norm.weight"), "text_encoder lacks the weight .*final_layer_norm.weight"),
        (
            TEXT,
            under_a_prefix,
            r"text_encoder lacks 36 weights \(the first: .*\) and has 36 weights \(the first: cond_",
        ),
        (TEXT, cut_to_one("final_layer_norm.weight"), "text_encoder has the weight .* of the wrong shape"),
        (UNET, without("conv_in"), r"unet lacks 2 weights \(the first: conv_in.bias\)"),
        (UNET, with_one_more, "unet has the weight one_more.weight that the model does not know"),
        (VAE, without("decoder.mid"), r"vae lacks \d+ weights \(the first: decoder.mid"),
        (VAE, with_one_more, "vae has the weight one_more.weight that the model does not know"),
        (VAE, cut_to_one("decoder.conv_out"), "vae has 2 weights .* of the wrong shape"),
    ],
)
def test_weights_that_are_not_what_the_model_needs_are_refused_by_name(models, tmp_path, name, change, words):
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    edit_weights(folder, name, change)
    with pytest.raises(ModelError, match=words) as caught:
        checked(folder)
    assert "\n" not in str(caught.value) and "copy both from the same model" in str(caught.value)


def test_weights_that_a_text_encoder_does_not_use_are_told(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    edit_weights(folder, TEXT, with_one_more)
    assert checked(folder)["told"] == [
        f"{folder}/text_encoder has the weight one_more.weight that the model does not use"
    ]


def test_settings_that_make_no_model_are_refused_in_one_line(models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    edit_json(folder, "unet/config.json", down_block_types=["NoSuchBlock"])
    with pytest.raises(ModelError, match="the model's unet cannot be built from its config.json: ") as caught:
        checked(folder)
    assert "\n" not in str(caught.value)


def with_scheduler(model, folder, kind, **settings):
    shutil.copytree(model, folder)
    edit_json(folder, "model_index.json", scheduler=["diffusers", kind])
    edit_json(folder, "scheduler/scheduler_config.json", _class_name=kind, **settings)
    return folder


@pytest.mark.parametrize(
    "kind, settings, scheduler, steps, words",
    [
        ("PNDMScheduler", {"skip_prk_steps": False}, "model", 2, "PNDMScheduler cannot make 2 steps: "),
        ("PNDMScheduler", {"skip_prk_steps": True}, "model", 1000, "PNDMScheduler cannot make 1000 steps: index 1000"),
        ("DDIMScheduler", {}, "dpm++", 1000, "DPMSolverMultistepScheduler cannot make 1000 steps: "),
        ("LCMScheduler", {"original_inference_steps": 50}, "model", 60, "LCMScheduler cannot make 60 steps: .*50"),
        ("LCMScheduler", {}, "ddim", 4, "job.scheduler=ddim does not fit this model's LCMScheduler"),
    ],
)
def test_a_scheduler_that_cannot_make_the_steps_is_refused(models, tmp_path, kind, settings, scheduler, steps, words):
    folder = with_scheduler(models["sd15"], tmp_path / "model", kind, **settings)
    with pytest.raises(ModelError, match=words.replace("+", r"\+")) as caught:
        checked(folder, scheduler, steps=[30, steps])
    assert "\n" not in str(caught.value) and "job.s" in str(caught.value)


def test_usual_numbers_of_steps_are_found_to_work_beside_those_asked_for(models, tmp_path):
    folder = with_scheduler(models["sd15"], tmp_path / "model", "PNDMScheduler", skip_prk_steps=False)
    working = working_steps(ModelFiles(folder), "model", [100], [3, 80])
    assert working == [*range(4, 61), 80, 100]
    assert working_steps(ModelFiles(folder), "euler", [], []) == [*range(1, 61)]
