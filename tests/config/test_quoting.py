"""Any text becomes the value of a key: what is advised is read back by a shell and by Hydra."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from batchgen.config.quoting import list_word, text_word

TEXTS = [
    "blurry,lowres", "a=b", "it's", 'a "b" c', "{red}", "(weird:1.2)", "US$ 5", "${x}", "a ${x} b", "a\\b", "b\\",
    'a\\"b', "[a,b]", "a#b", "a;b!", "été", "null", "true", "12", " a ", "$(ls)", "<none>", "~", "it's \"x,y\" \\", "",
    "a: b", "line\nbreak", "100% wool, `ls`",
]  # fmt: skip


def read(word: str) -> object:
    (one,) = shlex.split(word)
    override = OverridesParser.create().parse_override(one)
    assert not override.is_sweep_override()
    return OmegaConf.create({"value": override.value()})["value"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_from_its_word(text: str) -> None:
    word = text_word("job.negative_prompt", text)
    assert word is not None and word.lstrip("'").startswith("job.negative_prompt=")
    assert read(word) == text


@given(st.text(st.sampled_from("ab ,='\"\\$\u00e9[]{}():#"), max_size=12))
@settings(max_examples=100, deadline=None)
def test_a_word_is_right_or_there_is_none(text: str) -> None:
    word = text_word("job.negative_prompt", text)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    assert word is None or read(word) == (text[1:-1] if quoted else text)


def test_quotation_marks_that_the_shell_left_are_not_part_of_the_text() -> None:
    assert read(text_word("job.negative_prompt", '"a,b"') or "") == "a,b"


def test_a_list_of_files() -> None:
    assert list_word("job.prompts", ["a.txt", "b/*.csv"]) == "'job.prompts=[a.txt,b/*.csv]'"
    assert read(list_word("job.prompts", ["a b.txt", "d'e.txt", "c,d.txt"])) == ["a b.txt", "d'e.txt", "c,d.txt"]
