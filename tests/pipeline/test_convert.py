"""Weights of single files get the names of diffusers and transformers, and no number changes."""

import json

import pytest

pytest.importorskip("torch")

import diffusers
import torch
import transformers

from batchgen.errors import ModelError
from batchgen.models.assembled import CONFIGS
from batchgen.models.checkpoint import look
from batchgen.pipeline import convert
from tests.models import one_file
from tests.pipeline.small_models import save

FILES = {
    "sd15": one_file.stable_diffusion, "sd2": one_file.stable_diffusion_2, "sdxl": one_file.stable_diffusion_xl,
}  # fmt: skip
# The numbers of weights of the models as they were published.
PUBLISHED = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd21": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840,
    },
}  # fmt: skip


def pieces(model, checkpoint):
    """What the front door asks for, of a file whose model is in a folder."""
    index = json.loads((model / "model_index.json").read_text())
    names = {"denoiser": "unet"}
    return {
        names.get(part, part): dict(
            zip(("library", "kind"), index[names.get(part, part)], strict=True), prefix=prefix, names=sorted(tensors)
        )
        for part, (prefix, tensors) in checkpoint.parts.items()
    }


def furnish(folder, model, parts):
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_bytes((model / part / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("kind", FILES)
def test_every_part_has_the_numbers_of_the_folder_that_the_file_was_made_of(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(convert, "_PIECE_BYTES", 400_000)  # so that some parts are in several files
    model = save(kind, tmp_path / "model")
    file = one_file.save(FILES[kind](model), tmp_path / "a.safetensors")
    wanted = pieces(model, look("model.path", file))
    made = furnish(tmp_path / "made", model, wanted)
    convert.convert(file, made, wanted)
    for part in wanted:
        ours, theirs = one_file.weights(made, part), one_file.weights(model, part)
        ours, theirs = ({key.removeprefix("text_model."): one for key, one in each.items()} for each in (ours, theirs))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    assert (made / "unet/diffusion_pytorch_model.safetensors.index.json").is_file()


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_settings_in_the_package_are_those_of_the_published_models(kind):
    model = {}
    index = json.loads((CONFIGS / kind / "model_index.json").read_text())
    for part, count in PUBLISHED[kind].items():
        library, name = index[part]
        settings = json.loads((CONFIGS / kind / part / "config.json").read_text())
        with torch.device("meta"):
            if library == "diffusers":
                made = getattr(diffusers, name).from_config(settings)
            else:
                made = getattr(transformers, name)(getattr(transformers, name).config_class.from_dict(settings))
        assert sum(one.numel() for one in made.parameters()) == count
        model[part] = (settings, made.state_dict())
    file = {"sd15": FILES["sd15"], "sd21": FILES["sd2"], "sdxl": FILES["sdxl"]}[kind](model)
    unet = {name: one for name, one in file.items() if name.startswith("model.diffusion_model.")}
    settings, expected = model["unet"]
    made = convert.converted("UNet2DConditionModel", settings, "model.diffusion_model.", unet)
    assert {name: one.shape for name, one in made.items()} == {name: one.shape for name, one in expected.items()}


def test_a_vae_alone_and_parts_by_diffusers_own_names_are_taken(tmp_path):
    model = save("sdxl", tmp_path / "model")
    settings = json.loads((model / "vae/config.json").read_text())
    own = one_file.weights(model, "vae")
    for state in (one_file.vae(model), own):
        made = convert.converted("AutoencoderKL", settings, "", state)
        assert made.keys() == own.keys() and all(torch.equal(made[name], own[name]) for name in own)


@pytest.mark.parametrize("lost", ["model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_out.weight"])
def test_a_file_that_is_not_whole_is_refused_in_a_line(tmp_path, lost):
    model = save("sd15", tmp_path / "model")
    state = one_file.stable_diffusion(model)
    del state[lost]
    file = one_file.save(state, tmp_path / "a.safetensors")
    wanted = pieces(model, look("model.path", file))
    folder = furnish(tmp_path / "made", model, wanted)
    for is_trial in (True, False):
        with pytest.raises(
            ModelError, match=r"its (unet|vae) lacks the weight .*: it belongs to another kind of model"
        ):
            convert.convert(file, folder, wanted, is_trial)


def test_a_part_by_diffusers_own_names_that_lacks_one_lacks_one(tmp_path):
    model = save("sd15", tmp_path / "model")
    for part in ("vae", "unet"):
        settings, own = json.loads((model / part / "config.json").read_text()), one_file.weights(model, part)
        kind, lost = settings["_class_name"], list(own)[-1]
        made = convert.converted(kind, settings, "", {name: one for name, one in own.items() if name != lost})
        assert made.keys() == own.keys() - {lost}


def test_a_trial_writes_nothing(tmp_path):
    model = save("sd15", tmp_path / "model")
    file = one_file.save(one_file.stable_diffusion(model), tmp_path / "a.safetensors")
    wanted = pieces(model, look("model.path", file))
    folder = furnish(tmp_path / "made", model, wanted)
    convert.convert(file, folder, wanted, is_trial=True)
    assert [*folder.rglob("*.safetensors")] == []
