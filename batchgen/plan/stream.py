"""From prompt files to shards: those of a new plan, and those of the rows that come after a plan's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.errors import PromptError, ResumeError
from batchgen.plan.cutting import cut_shards
from batchgen.plan.inputs import Input, Matched, row_reader
from batchgen.plan.planner import FindLoras, Planner, no_loras, pack_batches
from batchgen.plan.rejects import none_usable
from batchgen.plan.settled import recall, rows_after
from batchgen.plan.store import Plan
from batchgen.prompts import Found
from batchgen.prompts.remedies import cure
from batchgen.types import Prompt, PromptFile, Reject, Shard


def plan_shards(
    config: Config, files: Sequence[PromptFile], found: Found | None = None, loras: FindLoras = no_loras
) -> Iterator[Shard | Reject]:
    """The shards of the prompt files, and the rows that cannot be used, as they are read.

    What is found in the files goes into `found`. `loras` finds LoRA files, and its ModelError passes.
    With `job.on_bad_row=fail` it raises PromptError at the first bad row; else at the end, if no row can be used.
    """
    found = Found() if found is None else found
    rows = row_reader(config.job, found=found)(enumerate(files))
    planner = Planner(config.job, found.notes, config.model.guided_above, loras)
    prompts = found.watch(planner.prompts(rows, config.job.limit))
    return _refuse_nothing(_shards(prompts, config, 0), files)


def _shards(prompts: Iterator[Prompt | Reject], config: Config, first_shard: int) -> Iterator[Shard | Reject]:
    if config.job.on_bad_row == "fail":
        prompts = _refuse_rejects(prompts)
    return cut_shards(pack_batches(prompts, config.job.batch_size), config, first_shard)


def _refuse_rejects(stream: Iterable[Prompt | Reject]) -> Iterator[Prompt | Reject]:
    for one in stream:
        if isinstance(one, Reject):
            helps = cure(one.source, one.reason)
            told = f"{one.reason}; {helps}" if helps else one.reason
            raise PromptError(f"{one.source}:{one.line}: {told} (job.on_bad_row=skip would leave it out)")
        yield one


def _refuse_nothing(shards: Iterable[Shard | Reject], files: Sequence[PromptFile]) -> Iterator[Shard | Reject]:
    shard_count, rejects, first = 0, 0, None
    for one in shards:
        if isinstance(one, Reject):
            rejects, first = rejects + 1, first or one
        else:
            shard_count += 1
        yield one
    if not shard_count:
        raise PromptError(none_usable(files, rejects, first))


def rows_to_add(
    plan: Plan,
    config: Config,
    matched: Matched,
    inputs: Sequence[Input],
    places: Sequence[int],
    found: Found,
    loras: FindLoras = no_loras,
) -> tuple[list[Input], Iterator[Shard | Reject]] | None:
    """The shards of rows that come after the planned ones, and the files that they are read from; None without any.

    Rows are added where `job.limit` was raised, and from the files at `places`, which are new or have grown. Keys,
    occurrences and seeds are those of one plan of all rows. Raises ResumeError where the limit allows no more rows or
    less than are planned. What is found in the files goes into `found`.
    """
    limit = config.job.limit
    if not places and limit == plan.limit:
        return None
    planner = Planner(config.job, found.notes, plan.config.model.guided_above, loras)
    rows, ends = recall(plan, planner)
    if limit is not None and (limit < rows or (places and limit == rows)):
        what, fewest = ("a run never loses any", rows) if limit < rows else ("no more can be added", rows + 1)
        raise ResumeError(
            f"job.limit={limit}, and {plan.run.root} has {rows} rows planned: {what}.\nNothing was changed: set "
            f"job.limit={fewest} or more, or leave it out, or start a new run with another run_dir=DIR"
        )
    has_left = plan.limit is not None and rows >= plan.limit and limit != rows
    if not places and not has_left:
        return None
    numbers = _all_numbers(matched, len(plan.inputs))
    taken = sorted((numbers[place], place) for place in (range(len(inputs)) if has_left else places))
    files = [(number, inputs[place].file) for number, place in taken]
    known = {file.name: ends[number] for number, file in files if number in ends}
    after = rows_after(row_reader(config.job, plan.reads, found)(files), known)
    prompts = found.watch(planner.prompts(after, None if limit is None else limit - rows))
    shards = _shards(prompts, config, plan.shard_count)
    added = [replace(inputs[place], continues=n if n < len(plan.inputs) else None) for n, place in taken]
    if places:
        return added, _refuse_nothing(shards, [file for _, file in files])
    return _unless_empty(added, shards)


def _all_numbers(matched: Matched, planned: int) -> list[int]:
    """The number of each file; files that are new get the next ones."""
    following = iter(range(planned, planned + len(matched.numbers)))
    return [next(following) if number is None else number for number in matched.numbers]


def _unless_empty(
    added: list[Input], shards: Iterator[Shard | Reject]
) -> tuple[list[Input], Iterator[Shard | Reject]] | None:
    """The same, or None where no shard comes: a limit above the number of rows is no mistake."""
    head: list[Shard | Reject] = []
    for one in shards:
        head.append(one)
        if isinstance(one, Shard):
            return added, chain(head, shards)
    rejects = [one for one in head if isinstance(one, Reject)]
    if rejects:
        files = [one.file for one in added]
        say(f"job.limit allows more rows, but {none_usable(files, len(rejects), rejects[0])}")
    return None
