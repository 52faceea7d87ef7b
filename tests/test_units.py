"""Sizes and durations as people write and read them."""

import pytest

from batchgen.errors import ConfigError
from batchgen.units import GIB, count, duration, gib, size_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GiB", 6 * GIB), ("6GB", 6 * 10**9), ("800 MiB", 800 << 20), ("1.5gib", 3 * GIB // 2), ("1TB", 10**12)],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert size_bytes("memory.max_vram", text) == size


@pytest.mark.parametrize("text", ["6", "6G", "GiB", "-1GiB", "6 gigs", ""])
def test_what_is_no_size_is_refused_in_the_name_of_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match="memory.max_vram=.* is not a size: write it as 6GiB"):
        size_bytes("memory.max_vram", text)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (45.4, "45s"), (59.6, "1m00s"), (185, "3m05s"), (7800, "2h10m")],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_number_has_its_noun_in_the_right_form() -> None:
    assert [count(number, "shard") for number in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
    assert (count(1, "batch", "batches"), count(3, "batch", "batches")) == ("1 batch", "3 batches")


def test_bytes_are_said_in_gib_or_mib() -> None:
    assert (gib(5 << 20), gib(1536 * GIB)) == ("5.0 MiB", "1,536.0 GiB")
