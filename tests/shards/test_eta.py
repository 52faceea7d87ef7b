"""When a run will be done: the rate of all workers together, and what is left, over made-up logs."""

import pytest

from batchgen.shards.eta import Made, left_s, rate, work_of
from batchgen.types import Batch
from tests.builders import make_prompt


def units(worker: str, start_s: float, seconds: float, count: int, amount: float = 8) -> list[Made]:
    return [Made(worker, start_s + place * seconds, start_s + (place + 1) * seconds, amount) for place in range(count)]


def test_one_worker() -> None:
    assert rate(units("a", 100, 4, 5), {"a"}, 121) == pytest.approx(2.0)


def test_workers_that_share_a_device_are_not_promised_what_one_did_by_itself() -> None:
    # For 40 s worker a has the cores to itself and makes 2 images/s; then four share them and make 2 images/s together.
    made = units("a", 0, 4, 10)
    for worker in "abcd":
        made += units(worker, 40, 16, 3)
    assert rate(made, set("abcd"), 89) == pytest.approx(2.0)
    # The first unit of b, c and d is not finished: a's rate stands for all, not four times a's.
    early = units("a", 0, 4, 10)
    assert rate(early, set("abcd"), 42) == pytest.approx(2.0)


def test_workers_on_devices_of_their_own_add_up() -> None:
    made = units("a", 0, 4, 10) + units("b", 3, 2, 18)
    assert rate(made, {"a", "b"}, 41) == pytest.approx(6.0, rel=0.03)


def test_a_worker_that_has_left_does_not_count() -> None:
    made = units("a", 0, 4, 10) + units("b", 0, 4, 10)
    assert rate(made, {"b"}, 41) == pytest.approx(2.0)
    assert rate(made, set(), 41) is None and rate([], {"a"}, 41) is None


def test_the_recent_rate_counts() -> None:
    made = units("a", 0, 1, 1000) + units("a", 1000, 8, 200)
    assert rate(made, {"a"}, 2601) == pytest.approx(1.0)


def test_a_worker_that_hangs_slows_the_rate_down() -> None:
    made = units("a", 0, 4, 10)
    assert rate(made, {"a"}, 44) == pytest.approx(2.0)
    later = rate(made, {"a"}, 408)
    assert later is not None and later < 0.3


def test_what_is_left_takes_as_long_as_the_longest_shard() -> None:
    assert left_s([10, 10, 10, 10], 2.0, 4) == pytest.approx(20)
    assert left_s([40], 2.0, 4) == pytest.approx(80)  # one worker has a quarter of the rate
    assert left_s([1, 1, 30], 2.0, 1) == pytest.approx(16)
    assert left_s([], 2.0, 4) == 0


def test_work_goes_by_pixels_and_passes_not_by_images() -> None:
    def batch(rows: int, **fields: object) -> Batch:
        return Batch(0, tuple(make_prompt(f"k{row}", **fields) for row in range(rows)))

    usual = work_of(batch(2, steps=20))
    assert work_of(batch(4, steps=20)) == 2 * usual
    assert work_of(batch(2, steps=20, width=128)) == 2 * usual
    assert work_of(batch(2, steps=20, guidance=1.0)) < 0.6 * usual
    assert work_of(batch(2, steps=40)) > 1.9 * usual
