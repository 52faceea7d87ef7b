"""The dry run: what would be made, in which batches and shards, and by which policy. It writes nothing."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import psutil

from batchgen.config.schema import Config
from batchgen.config.site import used_site
from batchgen.console import complain, say
from batchgen.errors import EXIT_WHOLE, BatchgenError, BrokenRunError, ConfigError, UserError
from batchgen.evening import kept
from batchgen.evening.array import array_lines
from batchgen.evening.cuts import cut_warning, may_be_cut
from batchgen.evening.download import first_line
from batchgen.evening.lines import Line, as_json, as_text, warnings
from batchgen.evening.outlook import Model, Outlook
from batchgen.evening.policies import able_of, assumed, model_line, policy_lines
from batchgen.evening.told import told_of
from batchgen.evening.trial import measure
from batchgen.evening.work import Job, job_of
from batchgen.launch.script import takes_gpus
from batchgen.machine.gpus import ASSUMED, Gpu
from batchgen.models.admit import Admission
from batchgen.models.find import in_cache, settled
from batchgen.models.fingerprint import fingerprint_model
from batchgen.padding import PADDED_SIZES, padded_rows, spans
from batchgen.paths import RunDir
from batchgen.plan.recipe import recipe_of
from batchgen.plan.rejects import first_reject
from batchgen.plan.replan import refuse_used
from batchgen.plan.store import Plan, Sources, load_plan
from batchgen.plan.stream import plan_shards
from batchgen.prepare import Inputs, extension, look_up, outdated_plan, without_secrets
from batchgen.prompts import Found, Reading, read_prompts
from batchgen.prompts.remedies import remedy
from batchgen.quality import refuse_large
from batchgen.shards.progress import shard_states
from batchgen.types import Reject, Shard
from batchgen.units import count

_MOST_TEXTS = 10_000  # that are looked at to know whether the model cuts them
_LOOKED_AT_ROWS = 1_000  # of each file of a plan that exists


def dry_run(run: RunDir, config: Config, gpus: Sequence[Gpu]) -> int:
    """Print what the command would do with these GPUs; return the exit code. Raises UserError as the command would."""
    lines, end = collect(run, config, gpus)
    if config.dry_run == "json":
        sys.stdout.write(as_json(lines))
    else:
        sys.stdout.write(as_text(lines))
        print("dry run: nothing was written")
    return EXIT_WHOLE if end is None else complain(end)


def collect(run: RunDir, config: Config, gpus: Sequence[Gpu]) -> tuple[list[Line], BatchgenError | None]:
    """All that a dry run says, and the error that the run itself would end with: shards are harmed, the disk too small.

    A new fact is one more `Line` here, and is then in the text and in the JSON. Raises UserError.
    """
    began_s = time.time()
    gpus = assumed(config, gpus)
    with look_up(config) as inputs:
        return _collect(run, without_secrets(config), gpus, inputs, began_s)


def _collect(
    run: RunDir, config: Config, gpus: Sequence[Gpu], inputs: Inputs, began_s: float
) -> tuple[list[Line], BatchgenError | None]:
    counts = summary(run, config, inputs)
    model = inputs.fetched if config.dry_run == "probe" else inputs.model or in_cache(config.model)
    config = config if model is None else settled(config, model)
    lines = [*_plan_lines(run, config, counts), *_fetched_line(inputs), model_line(config, model, gpus)]
    lines += [] if model else first_line(config.model)
    known = None if model is None else Model(model, inputs.fingerprint() if inputs.model else fingerprint_model(model))
    able = able_of(config, known, gpus, counts.sizes)
    if known is not None and config.dry_run == "probe":
        _probe(config, inputs, known, able, began_s)
    lines += policy_lines(config, known, gpus, counts.sizes)
    told, warned, refused = told_of(config, run, known, able, counts.jobs)
    knows_devices = bool(gpus) or not takes_gpus(config.launch)
    took = {key: value for line in told for key, value in line.values.items()} if knows_devices else {}
    array, misspelt, impossible = array_lines(run, config, counts.left, took)
    cut = None if model is None else cut_warning(model, list(counts.long_texts))
    lines += [*told, *array, *warnings([*_warnings(config, counts), *warned, *misspelt, *filter(None, (cut,))])]
    if refused is not None or impossible is not None:
        return lines, impossible or UserError(refused)
    return lines, BrokenRunError(counts.harm) if counts.harm is not None else None


def _probe(config: Config, inputs: Inputs, model: Model, gpus: Sequence[Gpu], began_s: float) -> None:
    """Measure the job on the first GPU, or the CPU, and keep what was found. Raises UserError."""
    if any(gpu.device == ASSUMED for gpu in gpus):
        raise ConfigError("dry_run=probe measures on a GPU that is here: leave out memory.assume_vram, or the probe")
    planned = replace(config, model=inputs.settled)
    sources = Sources(planned, inputs.looked_at, recipe_of(config, model.fingerprint, inputs.loras()))
    outlook = Outlook(config, model, gpus)

    def rows(width: int, height: int) -> int:
        policy = None if gpus else outlook.policy(width, height)
        return min(config.job.batch_size, policy.micro_batch if policy else config.job.batch_size)

    front_s = began_s - psutil.Process().create_time()
    devices = [gpu.device for gpu in gpus]
    _, paces = measure(
        lambda: plan_shards(config, inputs.files, loras=inputs.loras), sources, devices, rows, front_s, say
    )
    kept.keep(outlook.key, paces)


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
    jobs: list[list[Job]] = field(default_factory=list)  # the batches of each shard that is still to be made
    long_texts: dict[str, None] = field(default_factory=dict)  # of the first prompts that the model may cut

    @property
    def packing_percent(self) -> float:
        """How many of the denoised rows are prompts."""
        return 100 * self.prompts / self.places if self.places else 0.0

    @property
    def strict_percent(self) -> float:
        """How many more rows are denoised than with determinism=best."""
        return 100 * (self.places / self.padded - 1) if self.padded else 0.0

    @property
    def left(self) -> int:
        """How many shards are still to be made."""
        return self.shards if self.open_shards is None else self.open_shards

    def add(self, shard: Shard, config: Config, is_open: bool = True) -> None:
        """Count a shard in; `is_open`: whether it is still to be made."""
        if is_open:
            self.jobs.append([job_of(batch) for batch in shard.batches])
            texts = (prompt.prompt for batch in shard.batches for prompt in batch.prompts)
            if len(self.long_texts) < _MOST_TEXTS:
                self.long_texts |= dict.fromkeys(text for text in texts if may_be_cut(text))
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
    planned = config if inputs.model is None else settled(config, inputs.model)
    shards = plan_shards(planned, inputs.files, inputs.found, inputs.loras)
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
        counts.add(plan.shard(index)[0], config, index in states.open)
    if more is not None:
        planned = replace(counts)
        counts.take(more[1], config)
        counts.open_shards = len(states.open) + counts.shards - planned.shards
        counts.added = (
            f"{count(counts.prompts - planned.prompts, 'prompt')} in "
            f"{count(counts.batches - planned.batches, 'batch', 'batches')} and "
            f"{count(counts.shards - planned.shards, 'shard')} are added to {planned.prompts} in "
            f"{count(planned.shards, 'shard')}"
        )
    return counts


def _look_at(plan: Plan, inputs: Inputs) -> Found:
    """What the beginnings of the planned files hold, and the first prompt of the plan."""
    found = Found(example=next(plan.prompts(), None))
    for file in inputs.files:
        for _ in islice(read_prompts([file], Reading.of(plan.config.job, plan.reads), found=found), _LOOKED_AT_ROWS):
            pass
    return found


def _plan_lines(run: RunDir, config: Config, counts: Counts) -> Iterator[Line]:
    planned = counts.done_shards is not None
    done = f" ({count(counts.done_shards or 0, 'shard')} done)" if planned else ""
    yield Line(
        "run", f"{run.root}{done}", {"run_dir": str(run.root), "planned": planned, "shards_done": counts.done_shards}
    )
    if (site := used_site()) is not None:
        yield Line("site", str(site), {"site_file": str(site)})
    yield Line("prompts", str(counts.prompts), {"prompts": counts.prompts})
    if counts.added is not None:
        yield Line("extension", counts.added, {"extension": counts.added})
    yield _reject_line(counts)
    yield from (Line(label, text) for label, text in counts.found.lines())
    yield Line("", "", counts.found.plain())
    yield Line("batches", f"{counts.batches} of up to {config.job.batch_size}", {"batches": counts.batches})
    packing = f"{counts.packing_percent:.1f}% of the rows that run are prompts, the rest is padding"
    yield Line("packing", packing, {"packing_percent": round(counts.packing_percent, 1)})
    largest = count(counts.largest_shard, "batch", "batches")
    yield Line("shards", f"{counts.shards} of up to {largest}", {"shards": counts.shards})
    workers, left = config.launch.workers or 1, counts.left
    busy = min(workers, left)
    said = f"{busy} of {workers} can be busy at once: {_shards_left(left)}"
    yield Line("workers", said, {"workers": workers, "workers_busy": busy, "shards_left": left})
    if config.determinism == "strict":
        at_last = counts.batches % workers or min(workers, counts.batches)
        yield Line(
            "strict",
            f"rests are padded: up to {counts.strict_percent:.1f}% more rows are denoised; no batch is "
            f"cut: the last ones keep {at_last} of {workers} workers busy",
            {"strict_more_rows_percent": round(counts.strict_percent, 1), "workers_busy_at_last": at_last},
        )


def _fetched_line(inputs: Inputs) -> Iterator[Line]:
    """What was fetched from addresses, for this dry run only."""
    fetched = [one for one in inputs.looked_at if one.file.address is not None]
    if fetched:
        size_bytes = sum(one.size_bytes for one in fetched)
        said = f"{count(len(fetched), 'prompt file')}, {size_bytes / 1e6:.1f} MB, for this dry run; a run keeps copies"
        fields = [{"file": one.file.name, "bytes": one.size_bytes} for one in fetched]
        yield Line("fetched", said, {"fetched": fields})


def _shards_left(left: int) -> str:
    return f"{count(left, 'shard')} {'is' if left == 1 else 'are'} left"


def _reject_line(counts: Counts) -> Line:
    first = counts.first_reject
    if first is None:
        return Line("rejects", str(counts.rejects), {"rejects": counts.rejects, "first_reject": None})
    told = f"{first.source}:{first.line}: {first.reason}; {remedy(first.source, first.reason)}"
    fields = {"file": first.source, "line": first.line, "reason": first.reason}
    return Line("rejects", f"{counts.rejects} (first: {told})", {"rejects": counts.rejects, "first_reject": fields})


def _warnings(config: Config, counts: Counts) -> Iterator[str]:
    """What will go wrong, or not as one may expect, as far as the front door knows."""
    workers = config.launch.workers or 1
    if counts.left < workers and counts.left:
        idle = workers - counts.left
        yield (
            f"{idle} of {workers} workers {'has' if idle == 1 else 'have'} nothing to do: {_shards_left(counts.left)}; "
            "in a new run, a smaller job.batch_size or output.batches_per_shard=1 makes more"
        )
