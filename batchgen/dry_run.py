"""The dry run: what would be made, in which batches and shards, and by which policy. It writes nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.errors import EXIT_BROKEN, EXIT_WHOLE
from batchgen.machine.dtype import resolve_dtype
from batchgen.machine.gpus import Gpu
from batchgen.memory.defaults import default_policy
from batchgen.memory.forecast import foresee_on, refused_on
from batchgen.memory.frozen import task_of
from batchgen.models.admit import Admission
from batchgen.padding import PADDED_SIZES, padded_rows, spans
from batchgen.paths import RunDir
from batchgen.plan.rejects import first_reject
from batchgen.plan.store import Plan, load_plan
from batchgen.plan.stream import plan_shards
from batchgen.prepare import Inputs, extension, look_up, outdated_plan, refuse_used
from batchgen.prompts import Found, Reading, read_prompts
from batchgen.prompts.remedies import remedy
from batchgen.quality import refuse_large
from batchgen.shards.progress import shard_states
from batchgen.types import Reject, Shard
from batchgen.units import size_bytes

_LOOKED_AT_ROWS = 1_000  # of each file of a plan that exists
_ASSUMED_CAPABILITY = (8, 0)  # of a GPU that is only assumed: it has fp16 and bf16


def dry_run(run: RunDir, config: Config, gpus: Sequence[Gpu]) -> int:
    """Print what the command would do with these GPUs; return the exit code. Raises UserError as the command would."""
    gpus = _assumed(config, gpus)
    inputs = look_up(config)
    counts = summary(run, config, inputs)
    policies = list(_policy_lines(config, inputs, gpus, counts.sizes))
    for line in (*_plan_lines(run, config, counts), _model_line(config, gpus), *policies):
        print(line)
    print("dry run: nothing was written")
    if counts.harm is not None:
        say(counts.harm)
        return EXIT_BROKEN  # as the run itself would end
    return EXIT_WHOLE


@dataclass
class Counts:
    """What a plan holds, or would hold."""

    prompts: int = 0
    rejects: int = 0
    first_reject: Reject | None = None
    batches: int = 0
    places: int = 0  # rows that are denoised, padding included
    padded: int = 0  # the same with determinism=best
    shards: int = 0
    done_shards: int | None = None  # None: nothing is planned yet
    open_shards: int | None = None
    added: str | None = None  # what an extension adds to the plan
    found: Found = field(default_factory=Found)  # what the prompt files hold
    harm: str | None = None  # what is wrong with shards that were made, and what to do
    largest_shard: int = 0  # in batches
    sizes: tuple[tuple[int, int], ...] = ()  # (width, height) of the images, in px

    @property
    def packing_percent(self) -> float:
        """How many of the denoised rows are prompts."""
        return 100 * self.prompts / self.places if self.places else 0.0

    @property
    def strict_percent(self) -> float:
        """How many more rows are denoised than with determinism=best."""
        return 100 * (self.places / self.padded - 1) if self.padded else 0.0

    def add(self, shard: Shard, config: Config) -> None:
        """Count a shard in."""
        most = min(config.job.batch_size, PADDED_SIZES[-1])  # rows of a micro-batch; the policy is not known yet
        runs = [len(span) for batch in shard.batches for span in spans(len(batch.prompts), most)]
        padded, strict = sum(padded_rows(rows, most) for rows in runs), len(runs) * most
        self.shards += 1
        self.batches += len(shard.batches)
        self.padded += padded
        self.places += strict if config.determinism == "strict" else padded
        self.largest_shard = max(self.largest_shard, len(shard.batches))
        self.prompts += sum(len(batch.prompts) for batch in shard.batches)
        self.sizes = tuple(dict.fromkeys([*self.sizes, *(batch.size for batch in shard.batches)]))

    def take(self, shards: Iterable[Shard | Reject], config: Config) -> None:
        """Count in the shards of a plan, and the rows that are left out."""
        for one in shards:
            if isinstance(one, Reject):
                self.rejects += 1
                self.first_reject = self.first_reject or one
            else:
                self.add(one, config)


def summary(run: RunDir, config: Config, inputs: Inputs) -> Counts:
    """Count what the run's plan holds, or what a new plan would hold. Raises UserError as `prepare` would."""
    if run.plans() and outdated_plan(run, config, inputs) is None:
        return _planned(run, config, inputs)
    if not run.plans():
        refuse_used(run)
    refuse_large(config.output.format, config.job.width, config.job.height)
    counts = Counts(found=inputs.found)
    shards = plan_shards(config, inputs.paths, inputs.found)
    if inputs.model is not None:
        shards = Admission(inputs.model, config, inputs.fingerprint).watch(shards)
    counts.take(shards, config)
    return counts


def _planned(run: RunDir, config: Config, inputs: Inputs) -> Counts:
    plan = load_plan(run)
    more = extension(plan, config, inputs)
    states = shard_states(plan)
    counts = Counts(
        rejects=sum(segment.rejects for segment in plan.segments),
        first_reject=first_reject(plan),
        done_shards=len(states.whole),
        open_shards=len(states.open),
        harm=states.complaint(run) if states.broken else None,
        found=_look_at(plan, inputs),
    )
    for index in range(plan.shard_count):
        counts.add(plan.shard(index)[0], config)
    if more is not None:
        planned = replace(counts)
        counts.take(more[1], config)
        counts.open_shards = len(states.open) + counts.shards - planned.shards
        counts.added = (
            f"{counts.prompts - planned.prompts} prompts in {counts.batches - planned.batches} batches and "
            f"{counts.shards - planned.shards} shards are added to {planned.prompts} in {planned.shards} shards"
        )
    return counts


def _look_at(plan: Plan, inputs: Inputs) -> Found:
    """What the beginnings of the planned files hold, and the first prompt of the plan."""
    found = Found(example=next(plan.prompts(), None))
    for path in inputs.paths:
        for _ in islice(read_prompts([path], Reading.of(plan.config.job, plan.reads), found=found), _LOOKED_AT_ROWS):
            pass
    return found


def _plan_lines(run: RunDir, config: Config, counts: Counts) -> Iterator[str]:
    done = "" if counts.done_shards is None else f" ({counts.done_shards} shards done)"
    yield f"run        {run.root}{done}"
    yield f"prompts    {counts.prompts}"
    if counts.added is not None:
        yield f"extension  {counts.added}"
    first = counts.first_reject
    told = f"{first.source}:{first.line}: {first.reason}; {remedy(first.source, first.reason)}" if first else ""
    yield f"rejects    {counts.rejects}" + (f" (first: {told})" if first else "")
    yield from (f"{label:<10} {text}" for label, text in counts.found.lines())
    yield f"batches    {counts.batches} of up to {config.job.batch_size}"
    yield f"packing    {counts.packing_percent:.1f}% of the rows that run are prompts, the rest is padding"
    yield f"shards     {counts.shards} of up to {counts.largest_shard} batches"
    workers = config.launch.workers or 1
    left = counts.shards if counts.open_shards is None else counts.open_shards
    yield f"workers    {min(workers, left)} of {workers} can be busy at once: {left} shards are left"
    if config.determinism == "strict":
        at_last = counts.batches % workers or min(workers, counts.batches)
        yield (
            f"strict     rests are padded: up to {counts.strict_percent:.1f}% more rows are denoised; no batch is "
            f"cut: the last ones keep {at_last} of {workers} workers busy"
        )


def _model_line(config: Config, gpus: Sequence[Gpu]) -> str:
    return f"model      {config.model.path}, {_dtypes(config, gpus)}, scheduler {config.job.scheduler}"


def _dtypes(config: Config, gpus: Sequence[Gpu]) -> str:
    """The dtype of the weights, and the device."""
    named = config.model.dtype
    if not gpus:
        return f"{resolve_dtype(named, None)} on cpu"
    found = {resolve_dtype(named, gpu.capability) for gpu in gpus} if named == "auto" else {named}
    return " and ".join(sorted(found)) + " on cuda"


def _assumed(config: Config, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """The GPUs with as much free memory as `memory.assume_vram` says; without any GPU, one that is made up."""
    if config.memory.assume_vram is None:
        return gpus
    free_bytes = size_bytes("memory.assume_vram", config.memory.assume_vram)
    assumed = Gpu("assumed", "", free_bytes, _ASSUMED_CAPABILITY)
    return [replace(gpu, kind=gpu.kind or "", free_bytes=free_bytes) for gpu in gpus] or [assumed]


def _policy_lines(
    config: Config, inputs: Inputs, gpus: Sequence[Gpu], sizes: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """The policy of each size on each kind of GPU, why it would be chosen, and what else was considered."""
    model = inputs.model
    if not gpus or model is None:
        why = "a GPU's is chosen once the model is there" if model is None else "on the CPU"
        yield from _default_lines(config, sizes, why)
        return
    fingerprint, tasks = inputs.fingerprint(), [task_of(config, *size) for size in sizes]
    refused = refused_on(config, gpus, model, fingerprint, tasks)
    able = [gpu for gpu in gpus if gpu.device not in refused]
    # Cards of one kind share a policy; the card with the most room is shown.
    kinds = {gpu.kind: gpu for gpu in sorted(able, key=lambda gpu: gpu.free_bytes or 0)}
    for (kind, gpu), task in ((one, task) for one in kinds.items() for task in tasks):
        where = f"{task.width}x{task.height}" + (f" on {kind}" if len(kinds) > 1 else "")
        foreseen = foresee_on(config, gpu, model, fingerprint, task)
        if foreseen is None:
            yield f"policy     {where}: nvidia-smi does not say what GPU {gpu.device} is; a worker will measure it"
            continue
        choice, measured = foreseen
        estimated = "estimated from the model's files; a run of enough images measures"
        source = f"measured on this {kind}" if measured else estimated
        yield f"policy     {where}: {choice.reason} ({source})"
        yield from (f"           {line}" for line in choice.table())
    yield from (f"cannot     GPU {device}: {reason}" for device, reason in refused.items())


def _default_lines(config: Config, sizes: Sequence[tuple[int, int]], why: str) -> Iterator[str]:
    dtype = resolve_dtype(config.model.dtype, None)
    for width, height in sizes:
        policy = default_policy(config.memory.policy, config.speed, width, height, dtype, os.cpu_count() or 1)
        tiling = f"tiles of {policy.tile_px} px" if policy.tile_px else "no tiling"
        rows = f"micro-batch {policy.micro_batch}, decode chunk {policy.decode_chunk}"
        yield f"policy     {width}x{height}: {rows}, {tiling}, {why}"
