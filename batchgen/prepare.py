"""From a configuration to a plan: a new one, the one that is there, or that one extended."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config import Config, prompt_patterns
from batchgen.errors import PromptError, ResumeError
from batchgen.paths import RunDir, models_dir
from batchgen.pipeline.admit import Admission
from batchgen.pipeline.fingerprint import fingerprint_model
from batchgen.pipeline.model import download, find_model, hub_revision
from batchgen.plan import Plan, Recipe, load_plan, save_plan
from batchgen.planner import Planner, pack_batches, pack_shards
from batchgen.prompts import find_files, read_prompts
from batchgen.recipe import changes, input_changes, inputs_of, recipe_of
from batchgen.status import failed_samples
from batchgen.types import Prompt, Reject, Shard


def prepare(run: RunDir, config: Config) -> Plan:
    """The run's plan: made now, or the one that is there if it was made by the same recipe.

    Rows of added prompt files are planned with `extend`, failed images again with `retry_failed`.
    Raises UserError: ResumeError, with a diff, where the configuration would change what the run makes.
    """
    files = find_files(prompt_patterns(config), Path.cwd())
    if not run.plans():
        _refuse_used(run)
        recipe, shards = _new_plan(config, files)
        save_plan(run, run.plan, "run", 0, uuid.uuid4().hex, recipe, shards)
    plan = load_plan(run)
    added = _check_same(plan, config, files)
    if added:
        _extend(plan, config, [files[place] for place in added])
        plan = load_plan(run)
    if config.retry_failed:
        _retry(plan)
        plan = load_plan(run)
    return plan


def _refuse_used(run: RunDir) -> None:
    drafts = "plan."  # of a planning that was cut off
    used = run.root.is_dir() and any(not path.name.startswith(drafts) for path in run.root.iterdir())
    if used and not run.plans():  # asked again: another command may have planned it just now
        raise ResumeError(f"run_dir={run.root} holds other files and is not a run: name a directory of its own")
    if run.root.exists() and not run.root.is_dir():
        raise ResumeError(f"run_dir={run.root} is a file: name a directory")


def _new_plan(config: Config, files: list[Path]) -> tuple[Recipe, Iterator[Shard | Reject]]:
    """What a plan is made by, and its shards, for a model that was found good. Raises ModelError for another one.

    The shards, when they are taken, raise it too, at their end, for steps or sizes that the model cannot make.
    """
    folder = find_model(config.model)
    if folder is None:
        folder = download(config.model)
        settled = replace(config.model, revision=hub_revision(folder))
    elif folder.parent == models_dir():
        settled = config.model  # one that the package carries: found by its name wherever that is installed
    else:
        settled = replace(config.model, path=str(folder.resolve()))
    admission = Admission(folder, config)
    facts = recipe_of(config, admission.fingerprint)
    recipe = Recipe(replace(config, model=settled), inputs_of(files), facts)
    return recipe, admission.watch(plan_shards(config, files))


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
    return pack_shards(pack_batches(prompts, job.batch_size), config.output.batches_per_shard, first_shard)


def _refuse_rejects(stream: Iterable[Prompt | Reject]) -> Iterator[Prompt | Reject]:
    for one in stream:
        if isinstance(one, Reject):
            raise PromptError(f"{one.source}:{one.line}: {one.reason} (job.on_bad_row=skip would leave it out)")
        yield one


def _check_same(plan: Plan, config: Config, files: list[Path]) -> list[int]:
    """Which of the files are new to the plan. Raises ResumeError, with a diff, for any other change."""
    diff = changes(plan.recipe, recipe_of(config, _model_fingerprint(plan, config)))
    touched, added = input_changes(plan.inputs, inputs_of(files))
    diff += touched
    if added and not config.extend:
        diff += [f"{files[place]}: new" for place in added if not any(str(files[place]) in one for one in touched)]
    if not diff:
        return added
    only_new = all(one.endswith(": new") for one in diff)
    advice = "extend=true adds them to it; or" if only_new else "set it back, or"
    raise ResumeError(
        f"{plan.run.root} was planned otherwise: {'; '.join(diff)}.\n"
        f"Nothing was changed: {advice} start anew with another run_dir=DIR"
    )


def _model_fingerprint(plan: Plan, config: Config) -> str:
    folder = find_model(config.model)
    if folder is not None:
        return fingerprint_model(folder, config.model, str(plan.recipe["model"]))
    same_id = config.model.path == plan.config.model.path
    return str(plan.recipe["model"]) if same_id else config.model.path


def _extend(plan: Plan, config: Config, files: list[Path]) -> None:
    planner = Planner(config.job)
    rows = planner.recall(plan.prompts())
    if config.job.limit is not None and rows >= config.job.limit:
        raise ResumeError(f"job.limit={config.job.limit} rows are planned already: there is nothing to extend")
    rest = None if config.job.limit is None else config.job.limit - rows
    shards = plan_shards(
        replace(config, job=replace(config.job, limit=rest)), files, planner, len(plan.inputs), len(plan.sizes)
    )
    if (folder := find_model(config.model)) is not None:
        shards = Admission(folder, config).watch(shards)
    _add_segment(plan, "extend", Recipe(config, inputs_of(files), plan.recipe), shards)


def _retry(plan: Plan) -> None:
    """Plan failed images again, in new shards; those that wait in such a shard already are left out."""
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
    if again:
        prompts = (prompt for prompt in plan.prompts() if prompt.key in again)
        batches = pack_batches(prompts, plan.config.job.batch_size)
        shards = pack_shards(batches, plan.config.output.batches_per_shard, len(plan.sizes))
        _add_segment(plan, "retry", Recipe(plan.config, [], plan.recipe), shards)


def _add_segment(plan: Plan, kind: str, recipe: Recipe, shards: Iterable[Shard | Reject]) -> None:
    target = plan.run.extension(len(plan.segments))
    # Should another process be first, its extension is the one that counts: it was asked for the same.
    save_plan(plan.run, target, kind, len(plan.sizes), plan.run_id, recipe, shards)


def summary(run: RunDir, config: Config) -> dict[str, Any]:
    """What a dry run tells: counts of what the plan holds or would hold, by its name. Writes nothing.

    Raises UserError as `prepare` would.
    """
    if run.plans():
        plan = load_plan(run)
        _check_same(plan, replace(config, extend=True), find_files(prompt_patterns(config), Path.cwd()))
        counts = _Counts(rejects=sum(segment.rejects for segment in plan.segments))
        for index in range(len(plan.sizes)):
            counts.add(plan.shard(index)[0], config.job.batch_size)
        return counts.as_dict() | {"done_shards": len(run.committed())}
    _refuse_used(run)
    folder = find_model(config.model)
    counts = _Counts()
    shards = plan_shards(config, find_files(prompt_patterns(config), Path.cwd()))
    for shard in shards if folder is None else Admission(folder, config).watch(shards):
        if isinstance(shard, Reject):
            counts.rejects += 1
            counts.first_reject = counts.first_reject or shard
        else:
            counts.add(shard, config.job.batch_size)
    return counts.as_dict()


@dataclass
class _Counts:
    prompts: int = 0
    rejects: int = 0
    batches: int = 0
    places: int = 0
    shards: int = 0
    first_reject: Reject | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    def add(self, shard: Shard, batch_size: int) -> None:
        self.shards += 1
        self.batches += len(shard.batches)
        self.places += len(shard.batches) * batch_size
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
            "sizes": self.sizes,
        }
