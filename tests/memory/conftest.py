"""A run on a simulated device, with a cache of its own."""

from pathlib import Path

import pytest

from batchgen.memory import frozen as policies_module
from batchgen.memory import measure, probe
from batchgen.plan.store import Plan
from tests.builders import plan_run
from tests.memory.runs import JOB, PROMPTS
from tests.memory.test_probe import GUESS, Clock
from tests.memory.test_probe import Watch as SimulatedWatch


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Stopwatch", SimulatedWatch)
    # What other tests took would round the seconds, and so decide between policies that are equally fast.
    monkeypatch.setattr(Clock, "now_s", 0.0)
    for module in (measure, policies_module):
        monkeypatch.setattr(module, "guess", lambda *_: GUESS)
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_run(tmp_path, PROMPTS, **JOB)
