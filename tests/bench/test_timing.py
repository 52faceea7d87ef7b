"""The first call does not count, and what takes long is not repeated."""

import time

import pytest

pytest.importorskip("torch")

from batchgen.bench.timing import peak_bytes, timed


def test_the_median_is_that_of_the_calls_after_the_first():
    naps = iter([0.2, 0.01, 0.01, 0.01])
    taken = timed(lambda: time.sleep(next(naps)), 3)
    assert taken.seconds < 0.1 <= taken.first_s
    assert time.time() - taken.ended < 5
    assert next(naps, None) is None


def test_what_takes_long_is_measured_once():
    naps = iter([0.02] * 10)
    timed(lambda: time.sleep(next(naps)), 9, enough_s=0.01)
    assert len(list(naps)) == 8


def test_the_peak_is_of_this_process():
    assert peak_bytes() > 50 << 20
