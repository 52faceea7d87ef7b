"""Runs on a simulated device, for the tests of measuring and of policies."""

import threading
from pathlib import Path
from typing import Any

from batchgen.events import EventLog, read_events
from batchgen.memory.frozen import Policies
from batchgen.plan.store import Plan
from batchgen.shards.leases import Watch
from tests.builders import plan_run
from tests.memory.test_probe import Device

# Ten images of each, of many steps: a job that is worth a probe.
PROMPTS = [f"a red fox, take {place}" for place in range(40)]

JOB: dict[str, Any] = {
    "job__width": 512, "job__height": 512, "job__batch_size": 32, "job__steps": 50, "job__images_per_prompt": 10,
}  # fmt: skip


class Engine(Device):
    """The simulated device as an engine."""

    device_kind, dtype, scheduler_name = "Card 6", "fp16", "none"
    encodings = 0
    card = "GPU-1"
    # What the estimate takes the card for
    multiplied_per_s: float | None = None

    def __init__(self, size_bytes: float, card: str = "GPU-1", whole_bytes: float = 0.0) -> None:
        super().__init__(size_bytes)
        self.card, self._whole_bytes = card, whole_bytes
        self.beat = lambda: None

    def whole_bytes(self) -> int:
        return int(self._whole_bytes or self.size_bytes)

    def flop_per_s(self, dtype: str) -> float | None:
        return self.multiplied_per_s

    @property
    def gauge(self) -> Any:
        return self

    def encode(self, prompts: Any) -> str:
        self.encodings += 1
        return super().encode(list(prompts))


def another(tmp_path: Path, name: str, prompts: Any = PROMPTS, **job: Any) -> Plan:
    """Another run, of the same model."""
    (tmp_path / name).mkdir()
    return plan_run(tmp_path / name, prompts, **JOB | job)


def policies(plan: Plan, engine: Any, worker: str = "test", stop: threading.Event | None = None) -> Policies:
    return Policies(plan, engine, EventLog(plan.run.worker_log(worker)), worker, Watch(60), stop or threading.Event())


def events(plan: Plan, worker: str = "test") -> list[dict[str, Any]]:
    return list(read_events(plan.run.worker_log(worker)))


def own_files(plan: Plan) -> list[str]:
    """The files in policies/ of single cards."""
    return sorted(path.name for path in plan.run.policies.glob("*gpu*"))
