"""Reading figures: seconds between what was measured, and which jobs known figures serve."""

from dataclasses import replace
from typing import Any

import pytest

from batchgen.memory.figures import at, call_s, serves
from tests.memory.cards import GIB, sd15_512


@pytest.mark.parametrize(("amount", "seconds"), [(2, 1.0), (4, 1.5), (6, 2.0), (12, 4.0), (1, 0.5), (0.1, 0.2)])
def test_seconds_lie_on_lines_and_beyond_grow_in_proportion(amount: float, seconds: float) -> None:
    assert at(((2, 1.0), (6, 2.0)), amount) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("pixels", "count", "seconds"), [(4, 1, 1.0), (4, 2, 1.5), (8, 2, 3.0), (16, 1, 9.0), (2, 1, 0.5)]
)
def test_a_call_takes_what_the_next_smaller_piece_did(pixels: int, count: int, seconds: float) -> None:
    pieces = ((4, ((1, 1.0), (2, 1.5))), (16, ((1, 9.0),)))
    assert call_s(pieces, pixels, count) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("noted", "asked", "served"),
    [
        ({}, (1 << 50, 32, 1 << 20), True),
        ({"cut_at_bytes": 4 * GIB}, (4.5 * GIB, 32, 100), True),
        ({"cut_at_bytes": 4 * GIB}, (6 * GIB, 32, 100), False),
        ({"short_rows": 4}, (GIB, 4, 100), True),
        ({"short_rows": 4}, (GIB, 8, 100), False),
        ({"short_images": 100}, (GIB, 4, 101), True),
        ({"short_images": 100}, (GIB, 4, 200), False),
    ],
)
def test_what_is_known_serves_a_job_that_would_find_no_more(noted: Any, asked: Any, served: bool) -> None:
    assert serves(replace(sd15_512(), **noted), *asked) is served
