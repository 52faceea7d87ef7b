"""From a configuration to a plan: a new one, the one that is there, or that one extended."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config import Config, ModelConfig, prompt_patterns
from batchgen.cutting import cut_shards
from batchgen.errors import PromptError, ResumeError
from batchgen.files import sync_directory
from batchgen.free import save_free
from batchgen.memory.policy import PADDED_SIZES, padded_rows, spans
from batchgen.paths import RunDir, models_dir
from batchgen.pipeline.admit import Admission
from batchgen.pipeline.fingerprint import fingerprint_model
from batchgen.pipeline.model import download, find_model, hub_revision
from batchgen.plan import Plan, Recipe, load_plan, save_plan
from batchgen.planner import Planner, pack_batches
from batchgen.prompts import find_files, read_prompts
from batchgen.recipe import changes, computed_otherwise, input_changes, inputs_of, recipe_of
from batchgen.rejects import first_reject
from batchgen.replan import give_way, is_untouched
from batchgen.status import failed_samples
from batchgen.stock import take_stock
from batchgen.types import Prompt, Reject, Shard

_TRIES = 10  # to plan more while other commands do


def prepare(run: RunDir, config: Config) -> Plan:
    """The run's plan: made now, or the one that is there if it was made by the same recipe.

    A plan of which nothing was begun gives way to a new one. Rows of added prompt files are planned with `extend`,
    failed images again with `retry_failed`.
    Raises UserError: ResumeError, with a diff, where the configuration would change what the run makes.
    """
    files = find_files(prompt_patterns(config), Path.cwd())
    new = None
    if (unwanted := _unwanted(run, config, files)) is not None:
        new = _new_plan(config, files)  # refuses what could not run before the old plan is gone
        give_way(unwanted)
    for _ in range(_TRIES):
        if run.plans():
            break
        _refuse_used(run)
        recipe, shards = new or _new_plan(config, files)
        new = None
        save_plan(run, run.plan, "run", 0, uuid.uuid4().hex, recipe, shards)
    _plan_more(run, lambda plan: _extend(plan, config, files))
    if config.retry_failed:
        _plan_more(run, lambda plan: _retry(plan, config))
    sync_directory(run.root)  # the plan's name, if who gave it was killed: before there is anything more
    save_free(run, replace(config, model=replace(config.model, path=_settled_path(config.model))))
    return load_plan(run)


def _plan_more(run: RunDir, add: Callable[[Plan], bool]) -> None:
    """Let `add` extend the plan; once more, by the plan as it is then, where another command's extension was first.

    Raises ResumeError.
    """
    for _ in range(_TRIES):
        if add(load_plan(run)):
            return
    raise ResumeError(f"other commands keep extending {run.root}: run the same command again")


def _unwanted(run: RunDir, config: Config, files: list[Path]) -> Plan | None:
    """The plan that is there, if it is of another recipe and nothing of it was begun."""
    if not run.plans() or not is_untouched(run):
        return None
    plan = load_plan(run)
    return plan if _differences(plan, config, files)[0] else None


def _refuse_used(run: RunDir) -> None:
    if run.root.exists() and not run.root.is_dir():
        raise ResumeError(f"run_dir={run.root} is a file: name a directory")
    if run.root.is_dir() and not run.plans():
        # A draft of a planning that was cut off, and what is left where a plan gave way, are no other's files.
        ours = run.replaced.is_dir() and is_untouched(run)
        others = [path for path in run.root.iterdir() if not path.name.startswith("plan.")]
        if others and not ours and not run.plans():  # asked again: another command may have planned it just now
            raise ResumeError(f"run_dir={run.root} holds other files and is not a run: name a directory of its own")


def _new_plan(config: Config, files: list[Path]) -> tuple[Recipe, Iterator[Shard | Reject]]:
    """What a plan is made by, and its shards, for a model that was found good. Raises ModelError for another one.

    The shards, when they are taken, raise it too, at their end, for steps or sizes that the model cannot make.
    """
    folder = find_model(config.model)
    settled = replace(config.model, path=_settled_path(config.model))
    if folder is None:
        folder = download(config.model)
        settled = replace(settled, revision=hub_revision(folder))
    admission = Admission(folder, config)
    facts = recipe_of(config, admission.fingerprint)
    recipe = Recipe(replace(config, model=settled), inputs_of(files), facts)
    return recipe, admission.watch(plan_shards(config, files))


def _settled_path(model: ModelConfig) -> str:
    """`model.path` as workers find it from anywhere: a folder by its full path, others by name."""
    folder = find_model(model)
    return model.path if folder is None or folder.parent == models_dir() else str(folder.resolve())


def plan_shards(
    config: Config, files: list[Path], planner: Planner | None = None, first_file: int = 0, first_shard: int = 0
) -> Iterator[Shard | Reject]:
    """The shards of the prompt files, and the rows that cannot be used, as they stream by.

    Raises PromptError at the first bad row with `job.on_bad_row=fail`.
    """
    job = config.job
    planner = planner or Planner(job)
    rows = read_prompts(files, job.columns, job.encoding, first_file)
    prompts = planner.prompts(rows, job.limit)
    if job.on_bad_row == "fail":
        prompts = _refuse_rejects(prompts)
    return cut_shards(pack_batches(prompts, job.batch_size), config, first_shard)


def _refuse_rejects(stream: Iterable[Prompt | Reject]) -> Iterator[Prompt | Reject]:
    for one in stream:
        if isinstance(one, Reject):
            raise PromptError(f"{one.source}:{one.line}: {one.reason} (job.on_bad_row=skip would leave it out)")
        yield one


def _differences(plan: Plan, config: Config, files: list[Path]) -> tuple[list[str], list[int]]:
    """What was planned with different settings, new files apart that `extend` lets in; the places of new files."""
    diff = changes(plan.recipe, recipe_of(config, _model_fingerprint(plan, config)))
    touched, added = input_changes(plan.inputs, inputs_of(files))
    diff += touched
    if added and not config.extend:
        diff += [f"{files[place]}: new" for place in added if not any(str(files[place]) in one for one in touched)]
    return diff, added


def _check_same(plan: Plan, config: Config, files: list[Path]) -> list[int]:
    """Which of the files are new to the plan. Raises ResumeError, with a diff, for any other change."""
    diff, added = _differences(plan, config, files)
    if not diff:
        _refuse_other_bits(plan)
        return added
    only_new = all(one.endswith(": new") for one in diff)
    advice = "extend=true adds them to it; or" if only_new else "set it back, or"
    raise ResumeError(
        f"{plan.run.root} was planned with different settings: {'; '.join(diff)}.\n"
        f"Nothing was changed: {advice} start anew with another run_dir=DIR"
    )


def _refuse_other_bits(plan: Plan) -> None:
    """Raise ResumeError where the rest of a strict run would be computed in another way than what is there."""
    otherwise = computed_otherwise(plan.computes, plan.config.job.scheduler)
    if otherwise and plan.config.determinism == "strict" and take_stock(plan).open:
        raise ResumeError(f"{otherwise}: determinism=strict does not go on; start a new run with another run_dir=DIR")


def _model_fingerprint(plan: Plan, config: Config) -> str:
    folder = find_model(config.model)
    if folder is not None:
        return fingerprint_model(folder, config.model, str(plan.recipe["model"]))
    same_id = config.model.path == plan.planned.model.path
    return str(plan.recipe["model"]) if same_id else config.model.path


def _extend(plan: Plan, config: Config, files: list[Path]) -> bool:
    """Plan the files that are new; False where another command's extension was first. Raises ResumeError."""
    new = [files[place] for place in _check_same(plan, config, files)]
    if not new:
        return True
    planner = Planner(config.job)
    rows = planner.recall(plan.prompts())
    if config.job.limit is not None and rows >= config.job.limit:
        raise ResumeError(f"job.limit={config.job.limit} rows are planned already: there is nothing to extend")
    rest = None if config.job.limit is None else config.job.limit - rows
    shards = plan_shards(
        replace(config, job=replace(config.job, limit=rest)), new, planner, len(plan.inputs), len(plan.sizes)
    )
    if (folder := find_model(config.model)) is not None:
        shards = Admission(folder, config).watch(shards)
    return _add_segment(plan, "extend", Recipe(config, inputs_of(new), plan.recipe), shards)


def _retry(plan: Plan, config: Config) -> bool:
    """Plan failed images again, in new shards; those that wait in such a shard already are left out.

    False where another command's extension was first.
    """
    failed = failed_samples(plan)
    committed = plan.run.committed()
    waiting = {
        key
        for segment in plan.segments
        if segment.kind == "retry"
        for shard in range(segment.first_shard, segment.first_shard + len(segment.shards))
        if shard not in committed
        for key in plan.shard(shard)[0].keys
    }
    again = failed.keys() - waiting
    if not again:
        return True
    prompts = (prompt for prompt in plan.prompts() if prompt.key in again)
    batches = pack_batches(prompts, plan.config.job.batch_size)
    shards = cut_shards(batches, replace(plan.config, launch=config.launch), len(plan.sizes))
    return _add_segment(plan, "retry", Recipe(plan.config, [], plan.recipe), shards)


def _add_segment(plan: Plan, kind: str, recipe: Recipe, shards: Iterable[Shard | Reject]) -> bool:
    target = plan.run.extension(len(plan.segments))
    return save_plan(plan.run, target, kind, len(plan.sizes), plan.run_id, recipe, shards)


def summary(run: RunDir, config: Config) -> dict[str, Any]:
    """What a dry run tells: counts of what the plan holds or would hold, by its name. Writes nothing.

    Raises UserError as `prepare` would.
    """
    files = find_files(prompt_patterns(config), Path.cwd())
    if run.plans() and _unwanted(run, config, files) is None:
        plan = load_plan(run)
        _check_same(plan, config, files)
        stock = take_stock(plan)
        counts = _Counts(rejects=sum(segment.rejects for segment in plan.segments), first_reject=first_reject(plan))
        for index in range(len(plan.sizes)):
            counts.add(plan.shard(index)[0], config)
        harm = stock.complaint(run) if stock.broken else None
        return counts.as_dict() | {"done_shards": len(stock.whole), "open_shards": len(stock.open), "harm": harm}
    if not run.plans():
        _refuse_used(run)
    folder = find_model(config.model)
    counts = _Counts()
    shards = plan_shards(config, files)
    for shard in shards if folder is None else Admission(folder, config).watch(shards):
        if isinstance(shard, Reject):
            counts.rejects += 1
            counts.first_reject = counts.first_reject or shard
        else:
            counts.add(shard, config)
    return counts.as_dict()


@dataclass
class _Counts:
    prompts: int = 0
    rejects: int = 0
    batches: int = 0
    places: int = 0  # rows that run, padding included
    padded: int = 0  # the same under determinism=best
    shards: int = 0
    largest_shard: int = 0
    first_reject: Reject | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    def add(self, shard: Shard, config: Config) -> None:
        most = min(config.job.batch_size, PADDED_SIZES[-1])  # rows of a micro-batch, where its policy is not known
        runs = [len(span) for batch in shard.batches for span in spans(len(batch.prompts), most)]
        padded, strict = sum(padded_rows(rows, most) for rows in runs), len(runs) * most
        self.shards += 1
        self.batches += len(shard.batches)
        self.padded += padded
        self.places += strict if config.determinism == "strict" else padded
        self.largest_shard = max(self.largest_shard, len(shard.batches))
        self.prompts += sum(len(batch.prompts) for batch in shard.batches)
        self.sizes = tuple(dict.fromkeys([*self.sizes, *(batch.size for batch in shard.batches)]))

    def as_dict(self) -> dict[str, Any]:
        packing = 100 * self.prompts / self.places if self.places else 0.0
        return {
            "prompts": self.prompts,
            "rejects": self.rejects,
            "first_reject": self.first_reject,
            "batches": self.batches,
            "packing_percent": packing,
            "shards": self.shards,
            "largest_shard": self.largest_shard,
            "strict_percent": 100 * (self.places / self.padded - 1) if self.padded else 0.0,
            "sizes": self.sizes,
        }
