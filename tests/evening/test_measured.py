"""What a run showed is read from its logs: made-up ones here."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchgen.evening.measured import bytes_name, paces_of
from batchgen.events import EventLog
from batchgen.plan.store import Plan
from tests.builders import POLICY, fake_sample, plan_run, start_attempt

PASS_S, REST_S = 0.01, 0.5  # of a row and pass, of an image
LAUNCHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(plan: Plan, shard: int, batch: int, start_s: float, more_s: float = 0.0, worker: str = "w") -> Any:
    """Of a whole batch that was begun so long after the launch, and took `more_s` longer than usual."""
    prompts = plan.shard(shard)[0].batches[batch].prompts
    denoise_s = prompts[0].steps * 2 * len(prompts) * PASS_S + more_s
    return {
        "shard": shard, "batch": batch, "first_row": 0, "images": len(prompts), "worker": worker, "host": "h",
        "device": "cpu", "started_at": (LAUNCHED + timedelta(seconds=start_s)).isoformat(),
        "seconds": denoise_s + REST_S * len(prompts), "ooms": 0, "status": "ok", "policy": vars_of(),
        "stage_seconds": {"encode": 0.0, "denoise": denoise_s, "decode": REST_S * len(prompts), "write": 0.25},
        "peak_allocated_bytes": None, "host_rss_bytes": 1,
    }  # fmt: skip


def gives(facts: Any) -> Callable[[], Any]:
    return lambda: facts


def vars_of() -> dict[str, Any]:
    return {name: getattr(POLICY, name) for name in POLICY.__slots__}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two shards of two batches, made by one worker that was loaded 4 s after the launch and then measured for 10 s."""
    plan = plan_run(tmp_path, [f"fox {place}" for place in range(8)])
    log = EventLog(plan.run.worker_log("w"))
    log.add("loaded")
    log.add("policy")
    for shard in (0, 1):
        attempt = start_attempt(plan, shard)
        for batch in plan.shard(shard)[0].batches:
            place = 2 * shard + batch.index
            facts = record(plan, shard, batch.index, 14.0 + 2 * place, more_s=0.0 if place else 3.0)
            attempt.append([fake_sample(prompt) for prompt in batch.prompts], gives(facts))
        assert attempt.commit()
    lines = plan.run.worker_log("w").read_text().splitlines()
    at = [(LAUNCHED + timedelta(seconds=seconds)).isoformat() for seconds in (4, 14)]
    said = [f'{{"at": "{time}", "event": "{name}"}}' for time, name in zip(at, ("loaded", "policy"), strict=True)]
    assert len(lines) == 2
    plan.run.worker_log("w").write_text("\n".join(said) + "\n")
    return plan


def test_pace_start_end_and_bytes_are_what_the_logs_show(plan: Plan) -> None:
    launched_s = LAUNCHED.timestamp()
    kind, paces = paces_of(plan, launched_s, 1.0, 1.0, launched_s + 25.0)
    [pace] = paces.sizes.values()
    assert kind == "cpu" and list(paces.sizes) == ["64x64 resident"]
    [(rows, seconds)] = pace.pass_s
    assert rows == 4 and seconds == pytest.approx(4 * PASS_S) and pace.rest_s == pytest.approx(REST_S)
    # 1 s before the launch, 4 s to load; the 10 s of choosing do not count, what the first unit took longer does.
    assert paces.start_s == pytest.approx(1.0 + 4.0 + 3.0)
    # The last unit of the first shard was on the disk at 16 s, its seconds and writing later; the next began at 18 s.
    before = record(plan, 0, 1, 16.0)
    assert paces.shard_s == pytest.approx(18.0 - 16.0 - before["seconds"] - 0.25)
    last = record(plan, 1, 1, 20.0)
    assert paces.end_s == pytest.approx(25.0 - 20.0 - last["seconds"] - 0.25)
    [(name, (each, images))] = paces.image_bytes.items()
    assert (name, images) == (bytes_name(64, 64, "png", None), 8)
    assert each == pytest.approx(sum(plan.run.tar(shard).stat().st_size for shard in (0, 1)) / 8, rel=0.1)


def test_only_what_this_command_made_counts_and_only_whole_images_have_bytes(plan: Plan) -> None:
    later = LAUNCHED.timestamp() + 17.0
    _, paces = paces_of(plan, later, 0.0, 1.0, None)
    [(_, images)] = paces.image_bytes.values()
    assert images == 4
    assert paces_of(plan, LAUNCHED.timestamp() + 1e9, 0.0, 1.0, None)[1].sizes == {}
    assert paces_of(plan, LAUNCHED.timestamp(), 0.0, 1.0, None, whole=set())[1].image_bytes == {}
