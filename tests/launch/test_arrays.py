"""How many elements an array gets, and what of a request no cluster would run."""

import pytest

from batchgen.config.schema import LaunchConfig
from batchgen.errors import ConfigError, UserError
from batchgen.launch.arrays import request, rounds_line, spelling_notes, wall_s
from batchgen.machine.slurm import Limits, Partition

DAY_S = 86_400.0
LIMITS = Limits(
    1001, 10_000, (Partition("gpu", is_default=True, max_time_s=DAY_S, default_time_s=3600.0), Partition("long"))
)


@pytest.mark.parametrize(
    ("workers", "each", "open_shards", "alive", "elements", "spec"),
    [
        (8, 1, 100, 0, 8, "0-7"),
        (8, 1, 100, 3, 5, "0-4"),
        (8, 1, 100, 9, 0, None),
        (8, 1, 5, 0, 5, "0-4"),
        (9, 4, 100, 0, 3, "0-2"),
        (9, 4, 100, 1, 2, "0-1"),
        (None, 1, 100, 0, 1, "0-0"),
        (3000, 1, 5000, 0, 1001, "0-1000"),
    ],
)
def test_an_array_has_what_lacks(workers, each, open_shards, alive, elements, spec):
    found = request(LaunchConfig(workers=workers, workers_per_element=each), open_shards, alive, LIMITS)
    assert found.elements == elements
    assert not elements or found.spec == spec


def test_what_is_left_out_is_said():
    (short,) = request(LaunchConfig(workers=3000), 5000, 0, LIMITS).notes
    assert "1001 of 3000 are submitted now; the same command again" in short
    (few,) = request(LaunchConfig(workers=8), 5, 0, LIMITS).notes
    assert few == "5 shards are open, so 5 workers of 8 can work"


def test_at_once_is_the_limit_of_the_array():
    assert request(LaunchConfig(workers=8, at_once=2), 100, 0, LIMITS).spec == "0-7%2"
    assert request(LaunchConfig(workers=8, at_once=8), 100, 0, None).spec == "0-7"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "gpuu"}, "no partition gpuu; choose one of gpu, long"),
        ({"partition": "gpu,nowhere"}, "no partition nowhere"),
        ({"partition": "gpu", "time": "2-00:00:00"}, "partition gpu runs a job for 24h00m at most"),
        ({"time": "2-0"}, "the default partition runs a job for 24h00m at most"),
        ({"time": "2"}, "launch.slurm.time=2 leaves no time to work, because launch.warn_s=120 seconds"),
        ({"time": "soon"}, "launch.slurm.time=soon: write HOURS:MINUTES:SECONDS"),
    ],
)
def test_what_would_never_run_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        request(LaunchConfig(workers=2, slurm=options), 10, 0, LIMITS)


@pytest.mark.parametrize("options", [{"partition": "gpu,long", "time": "3-0"}, {"partition": "long", "time": "9-0"}])
def test_what_one_of_the_partitions_runs_is_taken(options):
    assert request(LaunchConfig(workers=2, slurm=options), 10, 0, LIMITS).elements == 2


def test_a_cluster_without_arrays_is_told():
    with pytest.raises(UserError, match=r"no job arrays \(MaxArraySize=1\)"):
        request(LaunchConfig(workers=2), 10, 0, Limits(1))


def test_the_wall_time_is_the_option_or_that_of_the_partition():
    assert wall_s(LaunchConfig(slurm={"time": "02:00:00"}), LIMITS) == 7200
    assert wall_s(LaunchConfig(), LIMITS) == 3600
    assert wall_s(LaunchConfig(slurm={"partition": "long"}), LIMITS) is None
    assert wall_s(LaunchConfig(), None) is None


def test_rounds_are_said_where_speed_and_wall_time_are_known():
    launch = LaunchConfig(slurm={"time": "01:02:30"})
    assert "1 round" in str(rounds_line(3600.0, 30.0, launch, None))
    assert "3 rounds, each of which" in str(rounds_line(7300.0, 30.0, launch, None))
    assert rounds_line(None, 30.0, launch, None) is None
    assert rounds_line(3600.0, 30.0, LaunchConfig(), None) is None
    assert "no time is left to work" in str(rounds_line(1.0, 0.0, LaunchConfig(slurm={"time": "1"}), None))


def test_options_that_are_nearly_known_are_noted():
    notes = spelling_notes(LaunchConfig(slurm={"partiton": "gpu", "qos": "x"}, collector={"memm": 1}))
    assert notes == [
        "launch.slurm.partiton: did you mean launch.slurm.partition?",
        "launch.collector.memm: did you mean launch.collector.mem?",
    ]
