"""Growth of memory: told apart from noise and from caches that fill, and renewed before it hurts."""

import random

import pytest

from batchgen.machine.growth import MOST_GROWN_BYTES, Growth, wants_renewal

MIB, GIB = 1 << 20, 1 << 30


def readings(count: int, slope_mib: float = 0.0, noise_mib: float = 0.0, warm_up_mib: float = 0.0) -> Growth:
    growth, rng = Growth(), random.Random(1)
    for place in range(count):
        warm = warm_up_mib * min(1.0, place / (0.1 * count))
        growth.add(int((2000 + warm + slope_mib * place + rng.uniform(-noise_mib, noise_mib)) * MIB))
    return growth


@pytest.mark.parametrize("slope_mib", [0.0, 0.5, 20.0, -3.0])
def test_the_slope_is_that_of_the_readings(slope_mib: float) -> None:
    assert readings(300, slope_mib, noise_mib=5).slope_bytes() / MIB == pytest.approx(slope_mib, abs=0.02)


def test_caches_that_fill_in_the_beginning_are_no_growth() -> None:
    assert readings(300, warm_up_mib=1500).slope_bytes() == pytest.approx(0, abs=0.01 * MIB)


def test_a_few_readings_and_none_say_nothing() -> None:
    assert readings(15, 100).slope_bytes() == 0
    growth = Growth()
    for _ in range(100):
        growth.add(None)
    assert (growth.slope_bytes(), growth.grown_bytes()) == (0, 0)


def test_a_long_run_keeps_few_readings() -> None:
    growth = readings(20_000, 0.01)
    assert growth.slope_bytes() / MIB == pytest.approx(0.01, rel=0.05)
    assert len(growth._readings) <= 4096


def test_renewal_is_for_what_would_run_short_or_has_grown_too_much() -> None:
    steady, leaking = readings(100, noise_mib=20), readings(100, 10)
    assert not wants_renewal(steady, GIB, 64)
    assert not wants_renewal(leaking, 100 * GIB, 64)
    assert wants_renewal(leaking, GIB, 64)
    assert wants_renewal(readings(1000, 1.2 * MOST_GROWN_BYTES / MIB / 900), 100 * GIB, 64)
