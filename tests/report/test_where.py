"""Samples that are asked for by their columns: which, and what is told where there are none."""

import pytest

from batchgen.errors import UserError
from batchgen.report.where import Where, parsed
from tests.builders import make_prompt

EXTRAS = [
    {"artist": "Ada", "score": 7.0, "id": 2**53 + 1},
    {"artist": "Bo", "score": None, "good": True},
    {"artist": "Cy", "tags": ["a", "b"], "line": "first\nsecond"},
]
PROMPTS = [make_prompt(key, extra=extra) for key, extra in zip("abc", EXTRAS, strict=True)]


@pytest.mark.parametrize(
    ("texts", "keys"),
    [
        (["artist=Ada"], "a"),
        (["score=7"], "a"),
        (["score=7.0", "artist=Ada"], "a"),
        (["id=9007199254740993"], "a"),
        (["good=true"], "b"),
        (['tags=["a", "b"]'], "c"),
        (["line=first\nsecond"], "c"),
        (["line=1"], "ab"),
        (["width=64", "guidance=7.5"], "abc"),
    ],
)
def test_values_are_found_as_a_person_types_them(texts, keys):
    where = Where(parsed(texts))
    assert where.matching(PROMPTS, None) == set(keys)
    where.check()
    assert Where(parsed(texts)).matching(PROMPTS, {"c"}) == set(keys) & {"c"}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["width=abc"], "where=width=abc: none of the images has this value; there are 64"),
        (["score=8"], "where=score=8: none of the images has this value; there are 7.0"),
        (["line=9"], "where=line=9: none of the images has this value; there are 1, first second"),
        (["artist=Ada", "score=8"], "where=score=8: none of the images has this value; there are 7.0"),
        (["artist=Bo", "score=7"], "where=artist=Bo where=score=7: none of the images has all of these; each alone is"),
        (["artst=Ada"], "where=artst: no row has this column; did you mean artist?"),
        (["good=True"], "where=good=True: none of the images has this value; there are true"),
    ],
)
def test_nothing_found_is_told_with_what_is_there(texts, told):
    where = Where(parsed(texts))
    assert where.matching(PROMPTS[:1], None) | where.matching(PROMPTS[1:], None) == set()
    with pytest.raises(UserError) as caught:
        where.check()
    assert str(caught.value).startswith(told)


def test_some_of_many_values_are_told():
    where = Where({"prompt": "x"})
    where.matching([make_prompt(str(place)) for place in range(9)], None)
    with pytest.raises(UserError, match=r"there are prompt of 0, .*, prompt of 4 and others$"):
        where.check()


@pytest.mark.parametrize("texts", [["artist"], ["=x"], ["a=1", "b=2", "a=1"]])
def test_what_cannot_be_asked_for_is_refused(texts):
    with pytest.raises(UserError, match="write where=COLUMN=VALUE|where=a= is there twice"):
        parsed(texts)


def test_nothing_asked_for_is_no_mistake():
    Where({}).check()
