"""Weights in texts are read as AUTOMATIC1111's web UI reads them; the options of a job are those it is given."""

import json
from dataclasses import asdict

import pytest

from batchgen.config.schema import ModelConfig
from batchgen.models.families import FAMILIES
from batchgen.models.families.texts import SIZES, TextOptions, holds_weights, weighted

READ = {
    "a plain text": [("a plain text", 1.0)],
    "a (big) house": [("a ", 1.0), ("big", 1.1), (" house", 1.0)],
    "(big:1.35)": [("big", 1.35)],
    "a [small] house": [("a ", 1.0), ("small", 1 / 1.1), (" house", 1.0)],
    r"\(text\) \[too\]": [("(text) [too]", 1.0)],
    "((big)) tree": [("big", 1.1**2), (" tree", 1.0)],
    "a (house [on a (hill:0.5)], sun": [("a ", 1), ("house ", 1.1), ("on a ", 1.0), ("hill", 0.5), (", sun", 1.1)],
    "(unclosed": [("unclosed", 1.1)],
    "closed) too]": [("closed) too]", 1.0)],
    "(a:b: .5 )": [("a:b", 0.5)],
    "(a (b:2) c:0.5)": [("a ", 0.5), ("b", 1.0), (" c", 0.5)],
    "([a:1.2])": [("a:1.2", 1.0)],
    "((a):1.2)": [("a", 1.1 * 1.2)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)],
    "(a:1.2.3)": [("a:1.2.3", 1.1)],
    "a \\ b \\n": [("a \\ b \\n", 1.0)],
    "": [("", 1.0)],
    "([])": [("", 1.0)],
    "(a)(b)[c": [("ab", 1.1), ("c", 1 / 1.1)],
}


@pytest.mark.parametrize("text", READ)
def test_brackets_are_weights(text: str) -> None:
    pieces = weighted(text)
    assert [piece for piece, _ in pieces] == [piece for piece, _ in READ[text]]
    assert [weight for _, weight in pieces] == pytest.approx([weight for _, weight in READ[text]])


def test_a_text_without_brackets_is_one_piece_whatever_it_holds() -> None:
    for text in ("a:1.2", "50% :-/ \\o/ <b> {x|y}", "\n\ta\u3000b", "x" * 20_000):
        assert weighted(text) == [(text, 1.0)]


def test_weights_that_are_written_out_are_found() -> None:
    assert all(map(holds_weights, ("a (cat:1.2)", "((cat, dog :.7 ) x", "(a [b]:2)")))
    assert not any(map(holds_weights, ("a (cat)", "a cat:1.2", r"\(cat:1.2)", "(cat: 1.2 x)", "at 12:30 (noon)", "")))
    assert not holds_weights("(" + "a" * 20_000 + ":1") and not holds_weights("(a:" + "1" * 20_000)


def test_options_are_those_of_the_configuration_also_through_json() -> None:
    model = ModelConfig(path="m", clip_skip=2, original_size=[640, 480], negative_crop_top_left=[3, 4])
    options = TextOptions.of(model)
    assert options.given == ("clip_skip", "original_size", "negative_crop_top_left")
    assert TextOptions.of(json.loads(json.dumps(asdict(options)))) == options
    assert TextOptions.of(ModelConfig(path="m")) == TextOptions() and not TextOptions().given
    assert options.told == {"original_size": (480, 640), "negative_crops_coords_top_left": (4, 3)}


def test_a_family_heeds_what_the_options_name_and_stays_what_it_was() -> None:
    names = {one for family in FAMILIES.values() for one in family.heeds}
    assert names == set(asdict(TextOptions())) and len(SIZES) == 6
    family = FAMILIES["StableDiffusionPipeline"]
    other = family.using(TextOptions(text_chunks=3, clip_skip=1, prompt_weights=True))
    assert (other.text_tokens, other.negatives_differ, other.pieces("(a)")) == (231, True, [("a", 1.1)])
    assert (family.text_tokens, family.negatives_differ, family.pieces("(a)")) == (77, False, [("(a)", 1.0)])
