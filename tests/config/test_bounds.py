"""Bounds of fields and keys."""

import pytest

from batchgen.config.bounds import KEY_PATTERN, PLANNED_KEY_PATTERN


@pytest.mark.parametrize(
    ("key", "own", "planned"),
    [
        ("fox_1-A", True, False),
        ("k" * 64, True, False),
        ("k" * 65, False, False),
        ("", False, False),
        ("a.b", False, False),
        ("f\u00fcchs", False, False),
        ("fox\n", False, False),
        ("000000000007-00", True, True),
    ],
)
def test_which_keys_a_row_may_have_and_which_are_the_planners(key: str, own: bool, planned: bool) -> None:
    assert (bool(KEY_PATTERN.fullmatch(key)), bool(PLANNED_KEY_PATTERN.fullmatch(key))) == (own, planned)
