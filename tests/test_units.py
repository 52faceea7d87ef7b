"""Sizes and durations as people write and read them."""

from datetime import datetime

import pytest

from batchgen.errors import ConfigError
from batchgen.units import GIB, count, duration, duration_s, gib, moment_s, size_bytes


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7h30m", 27_000),
        ("90m", 5400),
        ("90min", 5400),
        ("45s", 45),
        ("1d 12h", 129_600),
        ("07:30:00", 27_000),
        ("1-12:00:00", 129_600),
        ("120:00:00", 432_000),
    ],
)
def test_a_duration_is_read_with_its_units_or_as_sbatch_writes_it(text: str, seconds: float) -> None:
    assert duration_s("launch.time_limit", text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "90", "07:30", "27000", "7h30", "h", "-1h", "07:75:00", "soon"])
def test_what_says_no_unit_or_no_time_is_refused_in_the_name_of_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match="launch.time_limit=.* is not a duration: write it as 7h30m"):
        duration_s("launch.time_limit", text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("07:00", (2026, 3, 12, 7)),
        ("7:00", (2026, 3, 12, 7)),
        ("22:30:15", (2026, 3, 11, 22, 30, 15)),
        ("21:00", (2026, 3, 12, 21)),  # it is 21:00 now, and the next one is meant
        ("2026-03-31T07:00", (2026, 3, 31, 7)),
        ("2026-03-01 07:00", (2026, 3, 1, 7)),
    ],
)
def test_a_time_of_day_is_the_next_one_and_a_date_its_own(text: str, moment: tuple[int, ...]) -> None:
    now = datetime(2026, 3, 11, 21)
    found = datetime.fromtimestamp(moment_s("launch.stop_at", text, now.timestamp()))
    assert found.timetuple()[:6] == (*moment, 0, 0)[:6]


@pytest.mark.parametrize("text", ["", "7", "25:00", "07:60", "420", "tomorrow", "2026-02-31T07:00", "2026-03-31"])
def test_what_is_no_time_is_refused_in_the_name_of_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match="launch.stop_at=.* is not a time: write it as 07:00"):
        moment_s("launch.stop_at", text, 0.0)


def test_a_number_has_its_noun_in_the_right_form() -> None:
    assert [count(number, "shard") for number in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
    assert (count(1, "batch", "batches"), count(3, "batch", "batches")) == ("1 batch", "3 batches")


def test_bytes_are_said_in_gib_or_mib() -> None:
    assert (gib(5 << 20), gib(1536 * GIB)) == ("5.0 MiB", "1,536.0 GiB")
