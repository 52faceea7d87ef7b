"""From a configuration to a plan: a new plan, the one that exists, or that one extended.

A command looks its prompt files and its model up once (`look_up`) and hands what it found on.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from batchgen.config.schema import Config, ModelConfig, prompt_patterns, without_query
from batchgen.console import say
from batchgen.errors import ResumeError
from batchgen.files import sync_directory, to_json
from batchgen.models.admit import Admission
from batchgen.models.find import (
    ModelFiles,
    download,
    find_model,
    hub_revision,
    is_plain_hub,
    settled,
    settled_paths,
)
from batchgen.models.fingerprint import VERSION, fingerprint_model
from batchgen.models.lora import Loras, find_planned
from batchgen.paths import RunDir
from batchgen.plan.contents import copies_in
from batchgen.plan.cutting import cut_shards
from batchgen.plan.edits import file_changes, refusal
from batchgen.plan.free import save_free
from batchgen.plan.inputs import Input, Matched, inputs_of, match_inputs, row_reader
from batchgen.plan.planner import pack_batches
from batchgen.plan.recipe import changes, computed_otherwise, recipe_of
from batchgen.plan.replan import give_way, is_untouched, refuse_used
from batchgen.plan.store import Plan, Sources, load_plan, save_plan
from batchgen.plan.stream import plan_shards, rows_to_add
from batchgen.prompts import Fetcher, Found, find_files
from batchgen.quality import refuse_large
from batchgen.shards.progress import failed_samples, shard_states
from batchgen.stores.filesystem import is_address
from batchgen.types import PromptFile, Reject, Shard

_TRIES = 10  # to plan more while other commands do
_PUT_TOGETHER = ("base", "vae", "embeddings")  # what a model may have from elsewhere


class Inputs:
    """The prompt files and the model of a command. Each is looked up when it is first needed, and only once.

    `files`: the prompt files, in order. `found`: what is found in those that are read. Files that were fetched are
    removed at the end of its `with` block. `loras` finds the LoRA files of the job and of rows.
    """

    def __init__(self, files: list[PromptFile], wanted: ModelConfig, fetched: TemporaryDirectory[str] | None) -> None:
        self.files = files
        self.found = Found()
        self._wanted = wanted
        self._fetched = fetched
        self.loras = Loras(wanted.lora)
        self._fingerprints: dict[str | None, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fetched is not None:
            self._fetched.cleanup()

    @cached_property
    def looked_at(self) -> list[Input]:
        """Size and content of each prompt file, in the order of `files`."""
        return inputs_of(self.files)

    @cached_property
    def model(self) -> ModelFiles | None:
        """The model's files; None for a hub id. Raises ModelError if it is neither."""
        return find_model(self._wanted)

    @cached_property
    def fetched(self) -> ModelFiles:
        """The model's files; a hub model is downloaded if it is not in the cache. Raises ModelError."""
        return self.model or download(self._wanted)

    @property
    def settled(self) -> ModelConfig:
        """The model as workers find it from any directory: by full paths, bundled and hub models by name."""
        return replace(settled_paths(self._wanted), lora=self.loras.texts)

    def put_together(self) -> None:
        """Have a model that is unpacked or put together here. A whole model on the hub is left to `fetched`."""
        if self.model is None and not is_plain_hub(self._wanted):
            self.model = self.fetched

    def fingerprint(self, like: str | None = None) -> str:
        """The model's fingerprint, of the version that `like` has. Raises ModelError and OSError."""
        earlier = None if like is None or like.startswith(VERSION) else like
        if earlier not in self._fingerprints:
            self._fingerprints[earlier] = fingerprint_model(self.fetched, earlier)
        return self._fingerprints[earlier]


def look_up(config: Config) -> Inputs:
    """Find the prompt files and the model of a command, and fetch the files that are named by addresses.

    Raises PromptError where no file has that name, or one cannot be fetched.
    """
    patterns = prompt_patterns(config)
    if not any(map(is_address, patterns)):
        return Inputs(find_files(patterns, Path.cwd()), config.model, None)
    run = RunDir(Path(config.run_dir))
    planned = copies_in(run.root, load_plan(run).inputs) if run.plans() else {}
    folder = TemporaryDirectory(prefix="batchgen-prompts-", ignore_cleanup_errors=True)
    try:
        fetcher = Fetcher(Path(folder.name), planned)
        return Inputs(find_files(patterns, Path.cwd(), fetcher.files), config.model, folder)
    except BaseException:
        folder.cleanup()
        raise


def without_secrets(config: Config) -> Config:
    """The configuration as it may be kept: addresses of the web without their queries."""
    kept = [without_query(one) for one in prompt_patterns(config)]
    return replace(config, job=replace(config.job, prompts=kept if isinstance(config.job.prompts, list) else kept[0]))


def prepare(run: RunDir, config: Config) -> Plan:
    """The run's plan: a new one, or the one that exists if it was planned with the same settings.

    A plan that no work was begun on gives way to a new one. `extend` plans the rows of prompt files that were added,
    `retry_failed` plans failed images again.
    Raises UserError: ResumeError, with a diff, where the configuration would change what the run makes.
    """
    with look_up(config) as inputs:
        return _prepared(run, without_secrets(config), inputs)


def _prepared(run: RunDir, config: Config, inputs: Inputs) -> Plan:
    new = None
    inputs.put_together()
    if (unwanted := outdated_plan(run, config, inputs)) is not None:
        new = _new_plan(config, inputs)  # refuses what could not run before the old plan is gone
        give_way(unwanted)
    for _ in range(_TRIES):
        if run.plans():
            break
        refuse_used(run)
        sources, shards = new or _new_plan(config, inputs)
        new = None
        save_plan(run, run.plan, "run", 0, uuid.uuid4().hex, sources, shards)
    _plan_more(run, lambda plan: _extend(plan, config, inputs))
    if config.retry_failed:
        _plan_more(run, lambda plan: _retry(plan, config, inputs))
    for note in dict.fromkeys(inputs.found.notes):  # planned again where another command was first
        say(note)
    sync_directory(run.root)  # the command that named the plan may have been killed before it did this
    save_free(run, replace(config, model=inputs.settled))
    return load_plan(run)


def _plan_more(run: RunDir, add: Callable[[Plan], bool]) -> None:
    """Let `add` extend the plan. Where another command's extension was first, load the plan and try again.

    Raises ResumeError.
    """
    for _ in range(_TRIES):
        if add(load_plan(run)):
            return
    raise ResumeError(f"other commands keep extending {run.root}: run the same command again")


def outdated_plan(run: RunDir, config: Config, inputs: Inputs) -> Plan | None:
    """The plan that exists, if it was planned with different settings and no work was begun on it."""
    if not run.plans() or not is_untouched(run):
        return None
    plan = load_plan(run)
    settings, matched = _matched(plan, config, inputs)
    has_more = bool(matched.new or matched.grown) and not config.extend
    return plan if settings or matched.lost or has_more or config.job.limit != plan.limit else None


def _new_plan(config: Config, inputs: Inputs) -> tuple[Sources, Iterator[Shard | Reject]]:
    """What a plan is made from, and its shards. Raises ModelError for a model that could not run.

    After the last shard it is raised, too, for steps or sizes that the model cannot make.
    """
    refuse_large(config.output.format, config.job.width, config.job.height)  # before a download
    planned = settled(config, inputs.fetched)
    model = replace(inputs.settled, guided_above=planned.model.guided_above)
    if inputs.model is None:
        model = replace(model, revision=hub_revision(inputs.fetched.folder))
    planned = replace(planned, model=model)
    admission = Admission(inputs.fetched, config, inputs.fingerprint)
    sources = Sources(planned, inputs.looked_at, recipe_of(config, inputs.fingerprint(), inputs.loras()))
    return sources, admission.watch(plan_shards(planned, inputs.files, inputs.found, inputs.loras))


def _matched(plan: Plan, config: Config, inputs: Inputs) -> tuple[list[str], Matched]:
    """The settings that differ from those of the plan, and how the prompt files compare with the planned ones."""
    diff = changes(plan.recipe, recipe_of(config, _model_fingerprint(plan, config, inputs), inputs.loras()))
    told = {"model": _other_model, "loras": _other_loras}
    keys = [one.partition(": ")[0] for one in diff]
    settings = [told[key](plan, config, inputs) if key in told else one for key, one in zip(keys, diff, strict=True)]
    return settings, match_inputs(plan.inputs, inputs.looked_at)


def _other_model(plan: Plan, config: Config, inputs: Inputs) -> str:
    """How the model differs, in the form of the other settings where the path does."""
    now, planned = config.model.path, plan.planned.model.path
    if planned in (now, inputs.settled.path):
        both = [(key, getattr(config.model, key), getattr(plan.planned.model, key)) for key in _PUT_TOGETHER]
        others = "".join(f" or model.{key}" for key, new, old in both if new or old)
        return f"model.path={now}{others}: its files have changed"
    return f"model.path: {to_json(planned)} -> {to_json(now)} (it is not the model that was planned with)"


def _other_loras(plan: Plan, config: Config, inputs: Inputs) -> str:
    """How the job's LoRA differs: its files or weights are others, or are under the same names and have changed."""
    now, planned = inputs.loras.texts, plan.planned.model.lora
    if now == planned:
        return f"model.lora={', '.join(now or ())}: its files have changed"
    return f"model.lora: {to_json(planned)} -> {to_json(now)}"


def extension(plan: Plan, config: Config, inputs: Inputs) -> tuple[Sources, Iterator[Shard | Reject]] | None:
    """What the command adds to the plan: rows after those that are planned. None where it adds nothing.

    Raises ResumeError, with what changed and what to do, for any change that is not an addition, and for new rows
    without `extend`; ModelError as `prepare` does, and for LoRA files that are gone or have changed.
    """
    settings, matched = _matched(plan, config, inputs)
    files = file_changes(plan, matched, inputs.files, row_reader(plan.planned.job, plan.reads))
    if (told := refusal(settings, files, config.extend)) is not None:
        raise ResumeError(f"{plan.run.root} {told}, or start a new run with another run_dir=DIR")
    find = inputs.loras.beside(plan.loras)
    more = rows_to_add(plan, config, matched, inputs.looked_at, files.places, inputs.found, find)
    _refuse_other_bits(plan, more is not None)
    if plan.loras and (more is not None or shard_states(plan).open):
        find_planned(plan.loras, inputs.loras.texts)  # refuses what is gone or has changed
    if more is None:
        return None
    added, shards = more
    if inputs.model is not None:
        shards = Admission(inputs.model, config, inputs.fingerprint).watch(shards)
    return Sources(config, added, plan.recipe, plan.reads), shards


def _refuse_other_bits(plan: Plan, is_extended: bool) -> None:
    """Raise ResumeError where a strict run would be continued by another way of computing than it was begun by."""
    otherwise = computed_otherwise(plan.computes, plan.config.job.scheduler)
    if otherwise and plan.config.determinism == "strict" and (is_extended or shard_states(plan).open):
        raise ResumeError(f"{otherwise}: determinism=strict does not go on; start a new run with another run_dir=DIR")


def _model_fingerprint(plan: Plan, config: Config, inputs: Inputs) -> str:
    # A hub model is not fetched for this: its id stands for it.
    if inputs.model is not None:
        return inputs.fingerprint(like=str(plan.recipe["model"]))
    now, planned = inputs.settled, plan.planned.model
    same = all(getattr(now, key) == getattr(planned, key) for key in ("path", *_PUT_TOGETHER))
    return str(plan.recipe["model"]) if same else config.model.path


def _extend(plan: Plan, config: Config, inputs: Inputs) -> bool:
    """Plan the rows that are new; False where another command's extension was first. Raises ResumeError."""
    more = extension(plan, config, inputs)
    return more is None or _add_segment(plan, "extend", *more)


def _retry(plan: Plan, config: Config, inputs: Inputs) -> bool:
    """Plan failed images again, in new shards, except those that are planned again already and not made yet.

    False where another command's extension was first. Raises ModelError as `extension` does.
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
    find_planned(plan.loras, inputs.loras.texts)
    batches = pack_batches((prompt for prompt in plan.prompts() if prompt.key in again), plan.config.job.batch_size)
    shards = cut_shards(batches, replace(plan.config, launch=config.launch), plan.shard_count)
    return _add_segment(plan, "retry", Sources(plan.config, [], plan.recipe, plan.reads), shards)


def _add_segment(plan: Plan, kind: str, sources: Sources, shards: Iterable[Shard | Reject]) -> bool:
    target = plan.run.extension(len(plan.segments))
    return save_plan(plan.run, target, kind, plan.shard_count, plan.run_id, sources, shards)
