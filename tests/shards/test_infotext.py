"""Prompt and settings inside images, read by a reader of others: sd-parsers, and A1111's own rules."""

import io
import re
from dataclasses import replace

import pytest
from PIL import Image
from sd_parsers import ParserManager

from batchgen import __version__
from batchgen.shards.images import MOST_TEXT_BYTES, encode_image
from batchgen.shards.infotext import infotext
from batchgen.types import EMPTY_NEGATIVE
from tests.builders import fake_image, make_prompt

PROMPT = make_prompt("fox", prompt="a fox", negative_prompt="blurry, ugly", seed=4294967295, guidance=7.5)
# The rule by which A1111's web UI reads the settings in the last line.
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def test_the_text_is_in_the_form_of_a1111() -> None:
    assert infotext(PROMPT, "EulerAncestralDiscreteScheduler", "sd15") == (
        "a fox\nNegative prompt: blurry, ugly\n"
        "Steps: 2, Sampler: Euler a, CFG scale: 7.5, Seed: 4294967295, Size: 64x64, Model: sd15, "
        f"Version: batchgen {__version__}"
    )


@pytest.mark.parametrize("negative", ["", EMPTY_NEGATIVE])
def test_without_a_negative_prompt_there_is_no_line_for_it(negative: str) -> None:
    lines = infotext(replace(PROMPT, negative_prompt=negative, guidance=7.0), "OddScheduler", "m").split("\n")
    assert lines[0] == "a fox" and len(lines) == 2
    assert "Sampler: Odd, CFG scale: 7, " in lines[1]


def test_a_models_name_with_commas_stays_one_value() -> None:
    last = infotext(PROMPT, "DDIMScheduler", 'a, "b": c').splitlines()[-1]
    found = dict(SETTING.findall(last))
    assert (found["Model"], found["Version"]) == (r'"a, \"b\": c"', f"batchgen {__version__}")


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a fox", ""),
        ("a f\u00fcchs, (best:1.2), Steps: 3", "ugly"),
        ("\u72d0\u72f8 \U0001f98a\nin two lines\n\nand a fourth: with, marks", "\u043f\u043b\u043e\nand more"),
    ],
)
def test_a_reader_of_others_finds_it_in_each_format(image_format: str, prompt: str, negative: str) -> None:
    planned = replace(PROMPT, prompt=prompt, negative_prompt=negative)
    text = infotext(planned, "DPMSolverMultistepScheduler", "stable-diffusion-v1-5/stable-diffusion-v1-5")
    data = encode_image(fake_image(planned), image_format, None, text)
    with Image.open(io.BytesIO(data)) as image:
        found = ParserManager().parse(image)
    assert found is not None and found.generator.value == "AUTOMATIC1111"
    [sampler] = found.samplers
    assert [one.value for one in sampler.prompts] == [prompt]
    assert [one.value for one in sampler.negative_prompts] == ([negative] if negative else [])
    assert sampler.model is not None
    assert (sampler.name, sampler.model.name) == ("DPM++ 2M", "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert sampler.parameters == {"steps": "2", "cfg_scale": "7.5", "seed": "4294967295"}
    assert found.metadata == {"Size": "64x64", "Version": f"batchgen {__version__}"}


@pytest.mark.parametrize("letter", ["x", "\u72d0", "\U0001f98a"])
@pytest.mark.parametrize("most", [MOST_TEXT_BYTES["jpg"], MOST_TEXT_BYTES["jpg"] - 2])
@pytest.mark.parametrize(("prompt", "negative"), [(20_000, 20_000), (40_000, 3), (3, 40_000), (20_000, 14_000)])
def test_long_prompts_are_cut_for_a_jpeg_and_the_settings_stay(
    letter: str, most: int, prompt: int, negative: int
) -> None:
    planned = replace(PROMPT, prompt=letter * prompt, negative_prompt=letter * negative)
    text = infotext(planned, "DDIMScheduler", "m", most)
    assert most - 16 <= len(text.encode("utf-16-be")) <= most
    whole = infotext(planned, "DDIMScheduler", "m")
    assert text.splitlines()[-1] == whole.splitlines()[-1]
    first, second, _ = text.splitlines()
    second = second.removeprefix("Negative prompt: ")
    for told, planned_count in ((first, prompt), (second, negative)):
        assert told == letter * planned_count or re.fullmatch(f"{letter}{{9,}} \\.\\.\\.", told)
    with Image.open(io.BytesIO(encode_image(fake_image(PROMPT), "jpg", None, text))) as image:
        found = ParserManager().parse(image)
    assert found is not None and found.samplers[0].parameters["seed"] == "4294967295"


def test_what_fits_is_not_cut() -> None:
    assert infotext(PROMPT, "DDIMScheduler", "m", MOST_TEXT_BYTES["jpg"]) == infotext(PROMPT, "DDIMScheduler", "m")
