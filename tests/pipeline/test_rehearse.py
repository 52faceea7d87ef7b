"""Without weights a model's parts do one image's work: parts that do not fit are found, and whole models pass."""

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from batchgen.errors import ModelError
from batchgen.models.find import ModelFiles
from batchgen.pipeline.check import check
from tests.models.broken_models import both, cut_to, edit, setting
from tests.pipeline.small_models import ALL_KINDS, save, save_with_checker

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save(kind, folder / kind) for kind in ALL_KINDS} | {
        "checked": save_with_checker(folder / "checked", False)
    }


def checked(folder: Path, safety_checker: bool = False) -> Any:
    return check(ModelFiles(folder, None, safety_checker), "model", [2], [])["told"]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_whole_models_of_every_family_pass_without_a_word(models: dict[str, Path], kind: str) -> None:
    assert checked(models[kind]) == []


def test_a_whole_safety_checker_passes_and_one_whose_images_have_another_size_does_not(
    models: dict[str, Path], tmp_path: Path
) -> None:
    assert checked(models["checked"], True) == []
    shutil.copytree(models["checked"], tmp_path / "model")
    edit(tmp_path / "model/feature_extractor/preprocessor_config.json", crop_size={"height": 48, "width": 48})
    assert checked(tmp_path / "model") == []
    with pytest.raises(ModelError, match="its safety checker cannot look at an image: "):
        checked(tmp_path / "model", True)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("sd15", setting("vae/config.json", scaling_factor=None), "its vae does not fit .* scaling_factor is None"),
        ("sd15", setting("vae/config.json", scaling_factor=0), "scaling_factor is 0 in vae/config.json"),
        (
            "sd15",
            both(setting("unet/config.json", out_channels=2), cut_to(UNET, 2, "conv_out")),
            "its unet takes 4 channels and gives 2",
        ),
        ("sdxl", setting("tokenizer_2/tokenizer_config.json", model_max_length=None), "tokenizer_2 has no model_max"),
        ("sdxl", setting("text_encoder_2/config.json", projection_dim=16), "text_encoder_2 has the weight"),
        (
            "sdxl",
            setting("vae/config.json", latents_mean=[0.1, 0.1], latents_std=[1.0, 1.0]),
            "its vae does not fit the other parts: ",
        ),
        ("sdxl", setting("unet/config.json", addition_time_embed_dim=4), "its unet does not fit the other parts: "),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(
    models: dict[str, Path], tmp_path: Path, kind: str, change: Any, words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models[kind], folder)
    change(folder)
    with pytest.raises(ModelError, match=words) as caught:
        checked(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_parts_of_two_models_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["sd15"], folder)
    shutil.rmtree(folder / "unet")
    shutil.copytree(models["sdxl"] / "unet", folder / "unet")
    with pytest.raises(ModelError, match="its unet does not fit the other parts: .*copy all of it from one place"):
        checked(folder)
