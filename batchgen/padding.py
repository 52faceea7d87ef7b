"""How rows are padded to few sizes, and how many rows run at once. No torch."""

from collections.abc import Sequence

# Rows are padded to one of these, so that few shapes ever run and a short batch wastes little.
PADDED_SIZES = (1, 2, 4, 8, 16, 32)


def padded_rows(rows: int, micro_batch: int) -> int:
    """How many rows run when `rows` are left: the next of 1, 2, 4, 8, 16, 32, but at most `micro_batch`."""
    return min([size for size in PADDED_SIZES if size >= rows] + [micro_batch])


def spans(rows: int, size: int) -> list[range]:
    """The places 0 to `rows` cut into pieces of `size`; the last piece holds what is left."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def pad(rows: Sequence[int], target: int) -> list[int]:
    """The places of rows, with the last one repeated until there are `target` of them."""
    return [*rows, *[rows[-1]] * (target - len(rows))]
