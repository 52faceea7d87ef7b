"""What several tests build: configurations, planned runs, fake images, attempts at shards. No torch, no model runs."""

import json
from collections.abc import Collection, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, cast

from batchgen.config.schema import Config, JobConfig, ModelConfig
from batchgen.machine.process import identity
from batchgen.paths import RunDir
from batchgen.placements import PLACEMENTS
from batchgen.plan.records import checksum
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.prepare import prepare
from batchgen.shards.attempt import Attempt
from batchgen.shards.index import write_index
from batchgen.shards.memory_log import UnitRecord
from batchgen.shards.samples import Cuts, SampleMaker
from batchgen.types import Batch, Decoded, Prompt, Row, Sample

SIZE_PX = 64
POLICY = Policy(micro_batch=2, decode_chunk=1, tile_px=0, placement="resident", dtype="fp32", threads=1)
MAKER = SampleMaker("tiny", "2:f0", "model", "cpu", "png", None)
# What the memory log says of a unit besides the proof.
RECORD = cast(
    UnitRecord,
    {
        "started_at": "2026-01-02T03:04:05+00:00",
        "images": 2,
        "seconds": 1.0,
        "peak_allocated_bytes": None,
        "host_rss_bytes": 1 << 20,
    },
)


def write_rows(path: Path, rows: Sequence[str | dict[str, Any]]) -> Path:
    """A JSONL prompt file; a row that is text is a prompt with nothing else."""
    lines = [json.dumps({"prompt": row} if isinstance(row, str) else row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def make_config(tmp_path: Path, prompts: Sequence[str | dict[str, Any]] = ("a red fox",), **overrides: Any) -> Config:
    """A small job for the model 'tiny'; `job__seed=3` overrides job.seed."""
    config = Config(
        run_dir=str(tmp_path / "run"),
        job=JobConfig(
            name="test",
            prompts=str(write_rows(tmp_path / "prompts.jsonl", prompts)),
            batch_size=2,
            width=SIZE_PX,
            height=SIZE_PX,
            steps=2,
            guidance=7.5,
            scheduler="model",
        ),
        model=ModelConfig(path="tiny", size_px=SIZE_PX),
    )
    config.output.batches_per_shard = 2
    for name, value in overrides.items():
        *groups, leaf = name.split("__")
        owner = reduce(getattr, groups, config)
        assert hasattr(owner, leaf), name
        setattr(owner, leaf, value)
    return config


def plan_run(tmp_path: Path, prompts: Sequence[str | dict[str, Any]] = ("a red fox",), **overrides: Any) -> Plan:
    """A planned run in tmp_path/run, with the directories that workers write to."""
    config = make_config(tmp_path, prompts, **overrides)
    plan = prepare(RunDir(Path(config.run_dir)), config)
    plan.run.create_directories()
    return plan


def begun_with_form(form: int, plan: Plan) -> RunDir:
    """The plan on disk as a version wrote it that knew this form of samples; form 1 is stated nowhere."""
    path = plan.run.plan.facts
    facts = json.loads(path.read_bytes())
    facts |= {"sample_form": form}
    if form == 1:
        del facts["sample_form"]
    facts["checksum"] = checksum(facts)
    path.write_text(json.dumps(facts))
    return plan.run


def make_row(prompt: str = "a red fox", row: int = 0, **fields: Any) -> Row:
    """A row as the readers give it."""
    place: dict[str, Any] = {"file": 0, "row": row, "source": "prompts.txt", "line": row + 1, "prompt": prompt}
    return Row(**place | fields)


def make_prompt(key: str = "000000000000-00", **fields: Any) -> Prompt:
    """A planned prompt with every choice settled."""
    settled: dict[str, Any] = {
        "key": key,
        "prompt": f"prompt of {key}",
        "negative_prompt": "",
        "seed": 7,
        "width": SIZE_PX,
        "height": SIZE_PX,
        "steps": 2,
        "guidance": 7.5,
        "source": "prompts.txt",
        "line": 1,
    }
    return Prompt(**settled | fields)


class OnePolicy:
    """In place of a run's policies: every size begins with this one; what was stepped down to is kept."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.stepped_down: list[tuple[int, int, Policy]] = []

    def of(self, width: int, height: int) -> Policy:
        return self._policy

    def placements(self, width: int, height: int) -> Collection[str]:
        return tuple(PLACEMENTS)

    def step_down(self, width: int, height: int, policy: Policy) -> None:
        self.stepped_down.append((width, height, policy))


def fake_image(prompt: Prompt, finite: bool = True) -> Decoded:
    """Pixels that depend on the seed alone, as a real model's would; or what a decoder gives where it overflows."""
    colour = (prompt.seed % 2**24).to_bytes(3, "big")
    ramp = bytes(range(128)) * (prompt.width * prompt.height * 3 // 128)
    pixels = bytes(value ^ colour[place % 3] for place, value in enumerate(ramp))
    return Decoded(pixels if finite else None, prompt.width, prompt.height)


def fake_sample(prompt: Prompt, finite: bool = True) -> Sample:
    """The sample of a fake image, made as a worker makes it."""
    return MAKER.assemble(prompt, Cuts(), fake_image(prompt, finite), POLICY)


def start_attempt(plan: Plan, shard: int = 0, **changes: str) -> Attempt:
    """An attempt at a shard of the plan; `run_id` and `plan_digest` may be those of another run."""
    planned, digest = plan.shard(shard)
    return Attempt(plan.run, planned, **{"run_id": plan.run_id, "plan_digest": digest, "worker": "w"} | changes)


def append_batches(attempt: Attempt, batches: Sequence[Batch], failed: Collection[str] = ()) -> None:
    """Append each batch as one unit."""
    for batch in batches:
        samples = [fake_sample(prompt, prompt.key not in failed) for prompt in batch.prompts]
        attempt.append(samples, lambda: RECORD)


def leave_attempt(plan: Plan, batches: int, **changes: str) -> Attempt:
    """An attempt at shard 0 that ended after so many batches, its files closed."""
    attempt = start_attempt(plan, 0, **changes)
    append_batches(attempt, plan.shard(0)[0].batches[:batches])
    attempt.close()
    return attempt


def full_attempt(plan: Plan, shard: int = 0, failed: Collection[str] = ()) -> Attempt:
    """An attempt that holds all of its shard and is not committed yet."""
    attempt = start_attempt(plan, shard)
    append_batches(attempt, plan.shard(shard)[0].batches, failed)
    return attempt


def finish_run(plan: Plan, failed: Collection[str] = ()) -> None:
    """Make every shard of the plan that is not in yet, then the index."""
    for shard in range(plan.shard_count):
        if shard not in plan.run.committed():
            assert full_attempt(plan, shard, failed).commit()
    write_index(plan)


def gone_process() -> dict[str, Any]:
    """The identity of a process of this machine whose pid belongs to another one now."""
    return identity() | {"started": 0.0}


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file; a negative offset counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def truncate(path: Path, drop: int) -> None:
    """Drop the last bytes of a file."""
    path.write_bytes(path.read_bytes()[:-drop])
