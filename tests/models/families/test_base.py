"""What families share: their data say which parts they need, and latents are folded into tokens and back."""

import re
from pathlib import Path

import pytest

import batchgen
from batchgen.models.families import FAMILIES
from batchgen.models.families.base import NEVER, Family

PACKAGE = Path(batchgen.__file__).parent


def test_each_family_is_found_by_its_pipeline_and_is_small() -> None:
    modules = [path for path in sorted((PACKAGE / "models/families").glob("*.py")) if "FAMILY =" in path.read_text()]
    assert len(FAMILIES) == len(modules) == 8
    lines = {path.name: len(path.read_text().splitlines()) for path in modules}
    assert {name: count for name, count in lines.items() if count > 60} == {}
    assert all(name == family.pipeline for name, family in FAMILIES.items())


def test_what_a_model_needs_are_its_parts_but_those_that_may_be_left_out() -> None:
    needed = FAMILIES["StableDiffusion3Pipeline"].needed
    assert {"scheduler", "vae", "transformer", "text_encoder_2", "tokenizer_2"} <= set(needed)
    assert "text_encoder_3" not in needed and "unet" in FAMILIES["StableDiffusionPipeline"].needed


@pytest.mark.parametrize(
    ("pipeline", "index", "above"),
    [
        ("StableDiffusionXLPipeline", {}, 1.0),
        ("ZImagePipeline", {}, 0.0),
        ("FluxPipeline", {}, NEVER),
        ("Flux2KleinPipeline", {"is_distilled": True}, NEVER),
        ("Flux2KleinPipeline", {"is_distilled": False}, 1.0),
    ],
)
def test_where_guidance_begins_is_the_familys_and_sometimes_the_models(
    pipeline: str, index: dict[str, bool], above: float
) -> None:
    assert FAMILIES[pipeline].guidance_starts(index) == above


def test_schnell_reads_half_as_many_tokens() -> None:
    flux = FAMILIES["FluxPipeline"]
    assert flux.read_by({"guidance_embeds": True}) == ("tokenizer_2", 511)
    assert flux.read_by({"guidance_embeds": False}) == ("tokenizer_2", 255)
    assert FAMILIES["ZImagePipeline"].read_by({}) == ("tokenizer", 509)


def test_nothing_outside_the_families_names_the_part_that_denoises() -> None:
    named = re.compile(r"""\bunet\b|["']transformer["']""")
    elsewhere = [path for path in PACKAGE.rglob("*.py") if not {"families", "bench"} & {*path.parts}]  # scripts by hand
    figures = ("figures.py",)  # the name is in files on disk
    found = [path.name for path in elsewhere if named.search(path.read_text()) and path.name not in figures]
    assert found == []


def test_latents_are_folded_into_tokens_and_back() -> None:
    torch = pytest.importorskip("torch")
    from batchgen.models.families.base import packed, unpacked

    latents = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = packed(latents, 2)
    assert tokens.shape == (2, 6, 12) and tokens[0, 0].tolist()[:4] == [0, 1, 6, 7]
    assert torch.equal(unpacked(tokens, 2, 4, 6), latents)


def test_usual_latents_are_divided_and_shifted() -> None:
    torch = pytest.importorskip("torch")

    class Vae:
        config = {"scaling_factor": 0.5, "shift_factor": 0.25}

    assert Family().unscale(Vae, torch.ones(1)).item() == 2.25


def test_xl_goes_by_a_mean_and_a_deviation_and_the_older_ones_by_the_factor_alone() -> None:
    torch = pytest.importorskip("torch")

    class Vae:
        config = {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0], "shift_factor": 0.3}

    latents = torch.ones(1, 2, 4, 4)
    assert torch.equal(FAMILIES["StableDiffusionPipeline"].unscale(Vae, latents), 2 * latents)
    scaled = FAMILIES["StableDiffusionXLPipeline"].unscale(Vae, latents)
    assert (scaled[0, 0, 0, 0].item(), scaled[0, 1, 0, 0].item()) == (1 * 3 / 0.5 + 1, 1 * 4 / 0.5 + 2)
    Vae.config = {"scaling_factor": None}
    with pytest.raises((KeyError, TypeError)):
        FAMILIES["StableDiffusionPipeline"].unscale(Vae, latents)
