"""The end of a run: leftovers are swept, the index is written, and the outcome is reported.

The process that sees the last shard committed does this: the command that started the run, or a worker that was started
by itself. Two processes at once do no harm, since the index restates what the manifests prove.
"""

import glob
import json
from collections.abc import Callable
from dataclasses import dataclass

from batchgen.errors import EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES, BrokenRunError, ResumeError
from batchgen.files import remove_temporaries
from batchgen.paths import RunDir
from batchgen.plan.drafts import sweep_drafts
from batchgen.plan.rejects import rejected_line
from batchgen.plan.replan import sweep_marks
from batchgen.plan.store import Plan, load_plan
from batchgen.quality import MODELS
from batchgen.shards import index
from batchgen.shards.attempt import sweep
from batchgen.shards.copies import to_copy
from batchgen.shards.progress import failed_samples, shard_states
from batchgen.stores.target import target
from batchgen.units import count

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the exit code, and the lines for the user."""

    code: int
    lines: list[str]


def finish(plan: Plan) -> Outcome:
    """Finish a run whose shards are all committed; return how it went.

    The index is written unless the run was extended meanwhile and is not whole yet: then the process that makes the
    rest writes it. Raises BrokenRunError where a committed shard's tar is missing or cut, ResumeError where the plan
    has changed.
    """
    run = plan.run
    sweep(run)
    states = shard_states(plan)
    if states.broken:
        raise BrokenRunError(states.complaint(run))
    for directory in (run.root, run.work, run.leases, run.policies, run.shards, run.copies, run.memory_logs):
        remove_temporaries(directory)
    sweep_drafts(run)
    sweep_marks(run)
    _write_index(plan)
    return outcome(plan, "is done")


def finish_alone(plan: Plan, say: Callable[[str], None], after: Callable[[RunDir], list[str]]) -> int:
    """The end of a worker that no launcher waits for: it finishes the run if it is the last; return the exit code.

    `after` is done then, and returns lines to say. Raises what `finish` raises.
    """
    if shard_states(plan).open:
        return EXIT_WHOLE  # others are at work on the rest
    end = finish(plan)
    for line in [*end.lines, *after(plan.run)]:
        say(line)
    return end.code


def _write_index(plan: Plan) -> None:
    newest = load_plan(plan.run)
    if newest.run_id != plan.run_id:
        raise ResumeError(f"another command planned {plan.run.root} again meanwhile, with different settings")
    states = shard_states(newest)
    if not states.open and not states.broken:
        index.write_index(newest)
        if len(plan.run.plans()) > len(newest.segments):  # extended just now, and perhaps finished before us
            _write_index(plan)


def outcome(plan: Plan, state: str) -> Outcome:
    """The lines and the exit code for a run whose shards are all committed. Raises BrokenRunError."""
    shards = index.index_of(plan)["shards"]
    samples = sum(entry["samples"] for entry in shards)
    tar_bytes = sum(entry["bytes"] for entry in shards)
    missing = plan.images - samples
    run = plan.run
    made = f"{count(samples, 'image')} in {count(len(shards), 'shard')}"
    lines = [f"{run.root} {state}: {made}, {tar_bytes / MIB:,.1f} MiB"]
    if (rejected := rejected_line(plan)) is not None:
        lines.append(rejected)
    if missing:
        lines.append((_all_alike(plan) if not samples else None) or _failed(missing))
    if samples:
        when = "" if plan.config.output.keep_local or not to_copy(plan) else "once all is copied, "
        lines.append(f"{when}read them with {_readers(_where(plan))}")
    return Outcome(EXIT_WHOLE_WITH_FAILURES if missing else EXIT_WHOLE, lines)


def _readers(folder: str) -> str:
    """What reads the tars of a folder, as Python; without data_files, load_dataset would read the manifests."""
    if "::" in folder and "://" not in folder:  # `datasets` takes the name for two file systems
        return "webdataset"
    tars = json.dumps(f"{glob.escape(folder)}/*.tar", ensure_ascii=False)
    return f'load_dataset("webdataset", data_files={tars}), or with webdataset'


def _where(plan: Plan) -> str:
    """The folder of the tars: here, or where their copies are if tars leave this disk."""
    output = plan.config.output
    if output.keep_local or output.copy_to is None:
        return str(plan.run.shards)
    return target(output.copy_to).url(plan.run.shards.name)


def _failed(missing: int) -> str:
    them = "it" if missing == 1 else "them"
    return f"{count(missing, 'image')} failed; retry_failed=true tries {them} again, the manifests in shards/ say why"


def _all_alike(plan: Plan) -> str | None:
    """What to say where no image is good, all for the same reason that the decoded images show; None otherwise."""
    reasons = set(failed_samples(plan).values())
    if len(reasons) != 1 or (reason := reasons.pop()) not in MODELS:
        return None
    return (
        f"every image failed alike: {reason}. The model or its dtype (model.dtype={plan.config.model.dtype}) is the "
        "likely cause: try another one with another run_dir=DIR"
    )
