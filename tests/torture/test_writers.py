"""Commands on one run that are killed, stopped, told to end or live in other years: nothing lost, nothing twice."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.commands import answer

pytestmark = pytest.mark.slow


def writers(folder, kind, count):
    folder.mkdir()
    result = answer("tests.torture.writers", folder, kind, count)
    assert result["problems"] == []
    assert result["done"] >= count
    return result


@pytest.mark.parametrize(
    ("kind", "count"),
    [("kills", 12), ("stops", 3), ("repairs", 2), ("signals", 10), ("clocks", 2), ("extends", 4), ("takes", 4)],
)
def test_some_disturbed_runs_lose_nothing(tmp_path, kind, count):
    writers(tmp_path / kind, kind, count)


@pytest.mark.torture
def test_five_hundred_kills_of_two_writers_lose_nothing(tmp_path):
    with ThreadPoolExecutor(2) as pool:  # each has a core, and moments of its own
        done = pool.map(lambda name: writers(tmp_path / name, "kills", 250)["done"], ("kills-1", "kills-2"))
    assert sum(done) >= 500


@pytest.mark.torture
@pytest.mark.parametrize(
    ("kind", "count"),
    [("stops", 50), ("repairs", 20), ("signals", 100), ("clocks", 20), ("extends", 60), ("takes", 100)],
)
def test_many_disturbed_runs_lose_nothing(tmp_path, kind, count):
    writers(tmp_path / kind, kind, count)
