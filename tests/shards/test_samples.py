"""Samples: the image, its text, and a JSON that says how it was made, the same each time."""

import json
from dataclasses import asdict, replace

import pytest

from batchgen.shards.samples import SampleMaker
from batchgen.types import Decoded, Prompt, Sample
from tests.builders import MAKER, POLICY, fake_image, make_prompt

PROMPT = make_prompt("fox", prompt="a f\u00fcchs", source="/home/me/prompts.txt", line=3, extra={"id": 9})


def make(
    prompt: Prompt = PROMPT, maker: SampleMaker = MAKER, image: Decoded | None = None, cut: str | None = None
) -> Sample:
    return maker.assemble(prompt, cut, fake_image(prompt) if image is None else image, POLICY)


def about(sample: Sample) -> dict[str, object]:
    found = json.loads(sample.files["json"])
    assert isinstance(found, dict)
    return found


def test_the_same_image_is_the_same_bytes() -> None:
    assert make() == make()
    assert b"\n" not in make().files["json"]


def test_the_text_is_the_prompt_and_the_json_says_how_it_was_made() -> None:
    sample = make(cut="the rest")
    assert (sample.key, sample.status, sample.reason) == ("fox", "ok", None)
    assert sample.files["txt"].decode() == "a f\u00fcchs"
    facts = about(sample)
    for name in ("key", "prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance"):
        assert facts[name] == getattr(PROMPT, name)
    assert facts["policy"] == asdict(POLICY)
    assert (facts["model"], facts["device"], facts["scheduler"]) == ("tiny", "cpu", "model")
    assert (facts["cut"], facts["status"], facts["row"]) == ("the rest", "ok", {"id": 9})


def test_where_the_prompt_file_lies_does_not_change_the_sample() -> None:
    moved = make(replace(PROMPT, source="/elsewhere/prompts.txt"))
    assert moved == make()
    assert about(moved)["source"] == {"file": "prompts.txt", "line": 3}


def test_an_image_that_had_to_be_decoded_again_says_so() -> None:
    again = replace(fake_image(PROMPT), retried_in_fp32=True)
    assert [about(make(image=image))["decoded_again_in_fp32"] for image in (fake_image(PROMPT), again)] == [False, True]


@pytest.mark.parametrize("pixels", [None, b"", bytes(64 * 64 * 3 - 1)])
def test_an_image_that_is_not_one_fails_with_a_reason_and_no_files(pixels: bytes | None) -> None:
    sample = make(image=Decoded(pixels, 64, 64))
    assert (sample.key, sample.status, sample.files) == ("fox", "failed", {})
    assert sample.reason
