"""When work is to end early: from the configuration, the environment and the time it began."""

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from batchgen.config.schema import LaunchConfig
from batchgen.errors import ConfigError
from batchgen.launch.deadline import deadline, settled

BEGAN_S = datetime(2026, 3, 11, 15).timestamp()  # in the afternoon


def test_without_a_limit_there_is_no_deadline() -> None:
    assert deadline(LaunchConfig(), {}, BEGAN_S) is None


def test_a_command_of_the_afternoon_ends_the_next_morning() -> None:
    found = deadline(LaunchConfig(stop_at="07:00"), {}, BEGAN_S)
    assert found is not None
    assert (found.at_s, found.is_limit) == (datetime(2026, 3, 12, 7).timestamp(), False)
    assert found.why == "launch.stop_at=07:00 has come"


def test_a_time_limit_leaves_time_to_finish_and_counts_from_the_start() -> None:
    found = deadline(LaunchConfig(time_limit="7h30m", warn_s=120.0), {}, BEGAN_S)
    assert found is not None
    assert (found.at_s - BEGAN_S, found.is_limit) == (7.5 * 3600 - 120, True)
    assert found.why == "launch.time_limit=7h30m is over in 2m00s"


def test_a_time_limit_below_the_warning_ends_the_work_at_once() -> None:
    found = deadline(LaunchConfig(time_limit="60s", warn_s=120.0), {}, BEGAN_S)
    assert found is not None and found.at_s == BEGAN_S


def test_the_end_of_a_job_of_slurm_is_a_limit_whichever_comes_first_counts() -> None:
    launch = LaunchConfig(stop_at="07:00", time_limit="2h", warn_s=60.0)
    found = deadline(launch, {"SLURM_JOB_END_TIME": str(int(BEGAN_S) + 3600)}, BEGAN_S)
    assert found is not None
    assert (found.at_s - BEGAN_S, found.is_limit, found.why) == (3540, True, "SLURM ends this job at 16:00:00")
    later = deadline(launch, {"SLURM_JOB_END_TIME": str(int(BEGAN_S) + 9 * 3600)}, BEGAN_S)
    assert later is not None and later.at_s - BEGAN_S == 7140


@pytest.mark.parametrize("end", ["", "Unknown", "-1"])
def test_an_end_that_slurm_does_not_know_is_none(end: str) -> None:
    assert deadline(LaunchConfig(), {"SLURM_JOB_END_TIME": end}, BEGAN_S) is None


@pytest.fixture
def in_berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_a_settled_time_is_one_moment_for_those_who_begin_later_and_elsewhere() -> None:
    began_s = datetime(2026, 3, 28, 22).timestamp()  # the clock is put forward in the night
    text = settled(LaunchConfig(stop_at="07:00"), began_s)
    assert text == "2026-03-29T07:00:00+02:00"
    late = deadline(LaunchConfig(stop_at=text), {}, began_s + 20 * 3600)
    assert late is not None and late.at_s - began_s == 8 * 3600
    assert settled(LaunchConfig(stop_at=text), began_s + 20 * 3600) == text
    assert settled(LaunchConfig(), began_s) is None


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="launch.time_limit=90 is not a duration"):
        deadline(LaunchConfig(time_limit="90"), {}, BEGAN_S)
    with pytest.raises(ConfigError, match="launch.stop_at=noon is not a time"):
        settled(LaunchConfig(stop_at="noon"), BEGAN_S)
