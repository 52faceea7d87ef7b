"""How long a run takes, by paces: mixed jobs, several workers, devices that are shared."""

from dataclasses import replace

import pytest

from batchgen.evening.pace import Pace, Paces
from batchgen.evening.takes import Crew, sharing, takes
from batchgen.evening.work import Job
from tests.builders import POLICY

POLICY_16 = replace(POLICY, micro_batch=16)
PACE = Pace(((1.0, 0.01), (32.0, 0.32)), 0.05, 0.01)  # 0.01 s a row and pass, 0.05 s an image
SHORT, LONG = Job(64, 64, 10, False, 16), Job(64, 64, 40, True, 16)  # 2.4 s and 13.6 s


KNOWN = Paces({}, 6.0, 0.25, 0.5)


def test_a_run_is_start_and_shards_with_their_writing_and_end() -> None:
    found = takes([[SHORT, LONG], [SHORT]], lambda _: (PACE, POLICY_16), Crew(1), KNOWN)
    assert found.work_s == pytest.approx(2.4 + 13.6 + 2.4 + 2 * (16 * 0.01 + 0.25))
    assert found.seconds == pytest.approx(6.0 + found.work_s + 0.5)
    assert found.images_per_s == pytest.approx(48 / found.work_s)


def test_work_counts_and_not_images() -> None:
    half = [[SHORT]] * 5 + [[LONG]] * 5
    found = takes(half, lambda _: (PACE, POLICY_16), Crew(2), KNOWN)
    assert found.work_s == pytest.approx((5 * 2.4 + 5 * 13.6) / 2, rel=0.25)


def test_workers_on_devices_of_their_own_share_the_shards_and_others_the_device() -> None:
    shards = [[LONG]] * 8
    one = takes(shards, lambda _: (PACE, POLICY_16), Crew(1), KNOWN)
    two = takes(shards, lambda _: (PACE, POLICY_16), Crew(2), KNOWN)
    shared = takes(shards, lambda _: (PACE, POLICY_16), Crew(2, 2.0), KNOWN)
    assert two.work_s == pytest.approx(one.work_s / 2, rel=0.01)
    assert shared.work_s == pytest.approx(one.work_s, rel=0.02)


def test_nothing_left_takes_no_time() -> None:
    assert takes([], lambda _: (PACE, POLICY_16), Crew(1), KNOWN).seconds == 0


@pytest.mark.parametrize(
    ("workers", "devices", "threads", "cores", "times"),
    [(1, 0, 2, 2, 1), (2, 0, 2, 2, 2), (4, 0, 2, 2, 4), (4, 0, 4, 16, 1), (8, 8, 4, 2, 1), (4, 2, 4, 2, 2)],
)
def test_how_workers_share(workers: int, devices: int, threads: int, cores: int, times: float) -> None:
    assert sharing(workers, devices, threads, cores) == times
