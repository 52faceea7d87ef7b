"""Rows are padded to few sizes, and every row runs once."""

import pytest

from batchgen.padding import pad, padded_rows, spans


@pytest.mark.parametrize(
    ("rows", "micro_batch", "padded"),
    [(1, 8, 1), (2, 8, 2), (3, 8, 4), (5, 8, 8), (8, 8, 8), (5, 6, 6), (17, 32, 32), (33, 64, 64), (1, 1, 1)],
)
def test_rows_are_padded_to_few_sizes_and_never_beyond_the_micro_batch(
    rows: int, micro_batch: int, padded: int
) -> None:
    assert padded_rows(rows, micro_batch) == padded


@pytest.mark.parametrize("micro_batch", [1, 3, 6, 8, 24, 32, 40])
def test_padding_always_has_room_for_the_rows(micro_batch: int) -> None:
    for rows in range(1, micro_batch + 1):
        assert rows <= padded_rows(rows, micro_batch) <= micro_batch


@pytest.mark.parametrize(
    ("rows", "size", "pieces"), [(0, 4, []), (3, 4, [[0, 1, 2]]), (5, 2, [[0, 1], [2, 3], [4]]), (2, 2, [[0, 1]])]
)
def test_spans_cover_every_row_once(rows: int, size: int, pieces: list[list[int]]) -> None:
    assert [list(span) for span in spans(rows, size)] == pieces


@pytest.mark.parametrize(("target", "padded"), [(2, [3, 5]), (4, [3, 5, 5, 5])])
def test_pad_repeats_the_last_row(target: int, padded: list[int]) -> None:
    assert pad([3, 5], target) == padded
