"""Models that are put together: what is taken from where, and what is refused before anything is unpacked.

The conversion is faked where its result does not matter; tests/pipeline/test_convert.py has it.
"""

import json
import shutil
import sys

import pytest

from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError
from batchgen.models import unpack
from batchgen.models.assembled import CONFIGS, clip_words
from batchgen.models.find import check_model, download, find_model, locate, settled_paths
from batchgen.models.fingerprint import fingerprint_model
from tests.models.test_checkpoint import SD, UNET, VAE, kinds, write
from tests.pipeline.small_models import save

# Parts of a Stable Diffusion 1.x in one file, by their tell-tale names
PARTS = {
    "unet": SD,
    "vae": {f"first_stage_model.{name}": shape for name, shape in VAE.items()},
    "text_encoder": {"cond_stage_model.transformer.text_model.final_layer_norm.weight": [8]},
}
MARKS = """
import json, pathlib, sys
asked = json.load(sys.stdin)
for name, piece in asked["pieces"].items():
    stem = "diffusion_pytorch_model" if piece["library"] == "diffusers" else "model"
    (pathlib.Path(asked["folder"]) / name / f"{stem}.safetensors").write_text("of the file")
print(json.dumps({"sha256": "ab"}))
"""


@pytest.fixture(autouse=True)
def fake(tmp_path, monkeypatch):
    """A cache of its own, and a conversion that writes a mark for each part that it was asked for."""
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(unpack, "CONVERT_COMMAND", [sys.executable, "-c", MARKS])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {kind: save(kind, tmp_path_factory.mktemp("models") / kind) for kind in ("sd15", "sdxl")}


def one_file(tmp_path, without=(), more=None):
    shapes = {name: one for part, state in PARTS.items() if part not in without for name, one in state.items()}
    return write(tmp_path / "a.safetensors", shapes | (more or {}))


def is_of_file(folder, part):
    return any(path.read_bytes() == b"of the file" for path in (folder / part).glob("*.safetensors"))


def test_a_file_with_all_parts_becomes_a_folder_with_settings_from_the_package(tmp_path):
    config = ModelConfig(path=str(one_file(tmp_path)))
    assert find_model(config) is None, "a dry run unpacks nothing"
    found = download(config)
    assert find_model(config) == found
    folder = found.folder
    assert all(is_of_file(folder, part) for part in PARTS)
    for place in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        assert json.loads((folder / place).read_text()) == json.loads((CONFIGS / "sd15" / place).read_text())
    assert {name: (folder / "tokenizer" / name).read_bytes() for name in clip_words()} == clip_words()
    assert [part.name for part in found.parts()] == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]


def test_the_tokenizer_in_the_package_is_that_of_clip(tmp_path):
    from transformers import CLIPTokenizer

    vocabulary = json.loads(clip_words()["vocab.json"])
    assert (len(vocabulary), vocabulary["!"], vocabulary["<|endoftext|>"]) == (49408, 0, 49407)
    for kind, padding in (("sd15", 49407), ("sd21", 0)):
        folder = tmp_path / kind
        shutil.copytree(CONFIGS / kind / "tokenizer", folder)
        for name, data in clip_words().items():
            (folder / name).write_bytes(data)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        # The numbers that OpenAI's own tokenizer has for these words
        assert tokenizer("A photo of  a CAT").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
        assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (padding, 77)


def test_a_base_gives_what_the_file_lacks_and_its_settings(tmp_path, models):
    base = models["sd15"]
    config = ModelConfig(path=str(one_file(tmp_path, without=("vae",))), base=str(base))
    folder = download(config).folder
    assert [is_of_file(folder, part) for part in PARTS] == [True, False, True]
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (folder / weights).resolve() == (base / weights).resolve()
    for place in ("unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((folder / place).read_text()) == json.loads((base / place).read_text())
    assert (folder / "tokenizer/tokenizer.json").read_bytes() == (base / "tokenizer/tokenizer.json").read_bytes()


def test_a_file_that_says_so_predicts_v(tmp_path, models):
    told = {"v_pred": [0], "ztsnr": [0]}
    for base in (None, str(models["sd15"])):
        folder = download(ModelConfig(path=str(one_file(tmp_path, more=told)), base=base)).folder
        scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)


@pytest.mark.parametrize("form", ["folder", "of a model", "file"])
def test_another_vae_comes_in_place_of_the_models_own(tmp_path, models, form):
    other = save("sd15", tmp_path / "other")
    weights = other / "vae/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    vae = {"folder": other / "vae", "of a model": other, "file": write(tmp_path / "v.safetensors", VAE)}[form]
    config = ModelConfig(path=str(models["sd15"]), vae=str(vae))
    found = download(config)
    assert find_model(config) == found
    if form == "file":
        assert is_of_file(found.folder, "vae")
        assert (found.folder / "vae/config.json").read_text() != ""
        return
    check_model(found, "model")
    assert (found.folder / "vae" / weights.name).read_bytes() == data
    plain = ModelConfig(path=str(models["sd15"]))
    assert fingerprint_model(found) != fingerprint_model(locate(plain))
    same = ModelConfig(path=str(models["sd15"]), vae=str(models["sd15"]))
    assert fingerprint_model(locate(same)) == fingerprint_model(locate(plain)), "what counts is the content"


def test_a_file_without_its_vae_runs_with_another(tmp_path):
    file, vae = one_file(tmp_path, without=("vae",)), write(tmp_path / "v.safetensors", VAE)
    found = download(ModelConfig(path=str(file), vae=str(vae)))
    assert is_of_file(found.folder, "vae") and is_of_file(found.folder, "unet")
    settings = json.loads((found.folder / "vae/config.json").read_text())
    assert settings == json.loads((CONFIGS / "sd15/vae/config.json").read_text())


def refused():
    """{name of a test: (shapes of the file, other settings by the names of small models, what is said)}."""
    flux, wide = kinds()["FLUX.1"][0], VAE | {"decoder.conv_in.weight": [8, 16, 3, 3]}
    no_vae = {name: one for part in ("unet", "text_encoder") for name, one in PARTS[part].items()}
    odd = {f"{UNET}input_blocks.0.0.weight": [8, 4, 3, 3], f"{UNET}input_blocks.1.1.attn2.to_k.weight": [8, 32]}
    whole = {name: one for state in PARTS.values() for name, one in state.items()}
    return {
        "a transformer alone": (flux, {}, r"\(FLUX.1\) needs settings and tokenizers .*: set model.base to a folder"),
        "an odd UNet": (odd, {}, r"\(Stable Diffusion\) needs settings"),
        "without encoders": (SD, {}, r"\(Stable Diffusion 1.x\) lacks text_encoder, vae: set model.base .* the rest$"),
        "without a VAE": (no_vae, {}, r"lacks vae: set model.base .*, or the VAE alone with model.vae=\.\.\.$"),
        "a base of another kind": (flux, {"base": "sd15"}, r"is FLUX.1 \(FluxTransformer2DModel\), but model.base=.*"),
        "a VAE as the model": (VAE, {}, "is a VAE alone: name a model, and this file with model.vae="),
        "latents of 16 channels": (whole, {"vae": wide}, "latents of 16 channels, and this model makes 4"),
        "no VAE as the VAE": (whole, {"vae": SD}, "holds no VAE"),
        "a base for a folder": (None, {"base": "sd15"}, "is for a model in one file, and .* is a folder: leave it out"),
    }  # fmt: skip


@pytest.mark.parametrize("case", refused())
def test_what_does_not_belong_together_is_one_line_before_anything_is_unpacked(tmp_path, models, case):
    shapes, others, said = refused()[case]
    path = models["sd15"] if shapes is None else write(tmp_path / "a.safetensors", shapes)
    given = {key: str(models[one]) if isinstance(one, str) else str(write(tmp_path / "v.safetensors", one))
             for key, one in others.items()}  # fmt: skip
    for act in (find_model, download):
        with pytest.raises(ModelError, match=said) as caught:
            act(ModelConfig(path=str(path), base=given.get("base"), vae=given.get("vae")))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_vae_folder_of_another_class_or_of_other_channels_is_refused(tmp_path, models):
    folder = tmp_path / "vae"
    for change, said in (
        ({"latent_channels": 16}, "latents of 16 channels, and this model makes 4"),
        ({"_class_name": "AutoencoderTiny"}, "is a AutoencoderTiny, but this model decodes with a AutoencoderKL"),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(models["sd15"] / "vae", folder)
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | change))
        with pytest.raises(ModelError, match=said):
            find_model(ModelConfig(path=str(models["sdxl"]), vae=str(folder)))


def test_a_folder_that_is_no_vae_is_refused_in_words(tmp_path, models):
    (tmp_path / "vae").mkdir()
    with pytest.raises(ModelError, match=r"model.vae=.*/vae has no config.json: name the folder of a VAE"):
        find_model(ModelConfig(path=str(models["sd15"]), vae=str(tmp_path / "vae")))
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json cannot be read: Expecting .*; download or copy it again"):
        find_model(ModelConfig(path=str(models["sd15"]), vae=str(tmp_path / "vae")))


def test_paths_are_settled_for_workers_elsewhere(tmp_path, monkeypatch, models):
    one_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = settled_paths(ModelConfig(path="a.safetensors", base="tiny", vae="org/vae"))
    assert (found.path, found.base, found.vae) == (str(tmp_path / "a.safetensors"), "tiny", "org/vae")


def test_a_variant_is_settled_where_the_links_are_made(tmp_path, models):
    folder = tmp_path / "fp16"
    shutil.copytree(models["sd15"], folder)
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    config = ModelConfig(path=str(folder), vae=str(models["sd15"]), variant="fp16")
    found = locate(config)
    check_model(found, "model")
    assert (found.folder / "unet/diffusion_pytorch_model.safetensors").is_file()
    with pytest.raises(ModelError, match="model.variant=fp61: .* did you mean fp16"):
        find_model(ModelConfig(path=str(folder), vae=str(models["sd15"]), variant="fp61"))
