"""Each durable operation of a run fails in turn: what was said and left is sound, and the same command ends it."""

import pytest

from tests.commands import answer

# One case in so many for every `make test`; the rest with `make torture`.
SAMPLED = 23


def faults(folder, every):
    return answer("tests.torture.faults", folder, every)


def test_a_sample_of_failed_operations_loses_nothing(tmp_path):
    result = faults(tmp_path, SAMPLED)
    assert result["problems"] == []
    assert result["operations"] > 150 and result["cases"] > 60
    assert set(result["modes"]) >= {"ENOSPC", "EIO", "EDQUOT", "ESTALE", "full:ENOSPC", "full:EDQUOT", "late", "kill"}


@pytest.mark.torture
def test_every_failed_operation_loses_nothing(tmp_path):
    result = faults(tmp_path, 1)
    assert result["problems"] == []
    assert result["modes"]["EIO"] == result["modes"]["kill"] == result["operations"]
