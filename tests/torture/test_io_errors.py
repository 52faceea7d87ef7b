"""Each durable operation of a run fails in turn: what was said and left is sound, and the same command ends it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.commands import answer

pytestmark = pytest.mark.slow

# One case in so many for every `make test-slow`; the rest with `make torture`.
SAMPLED = 37


def faults(folder, every, first=0):
    folder.mkdir(exist_ok=True)
    return answer("tests.torture.faults", folder, every, first)


def test_a_sample_of_failed_operations_loses_nothing(tmp_path):
    result = faults(tmp_path, SAMPLED)
    assert result["problems"] == []
    assert result["operations"] > 150 and result["cases"] > 50
    assert set(result["modes"]) >= {"ENOSPC", "EIO", "EDQUOT", "ESTALE", "full:ENOSPC", "full:EDQUOT", "late", "kill"}


@pytest.mark.torture
def test_every_failed_operation_loses_nothing(tmp_path):
    with ThreadPoolExecutor(2) as pool:  # half of the cases on each of two cores
        halves = list(pool.map(lambda first: faults(tmp_path / f"half-{first}", 2, first), (0, 1)))
    assert [half["problems"] for half in halves] == [[], []]
    modes = Counter(halves[0]["modes"]) + Counter(halves[1]["modes"])
    assert modes["EIO"] == modes["kill"] == halves[0]["operations"] == halves[1]["operations"]
