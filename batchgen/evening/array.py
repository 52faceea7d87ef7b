"""What launch=slurm would submit, as lines of a dry run."""

from collections.abc import Collection, Iterator
from typing import Any

from batchgen.config.schema import Config
from batchgen.errors import UserError
from batchgen.evening.lines import Line
from batchgen.evening.outlook import Outlook
from batchgen.launch import notes
from batchgen.launch.arrays import Request, request, rounds_line, spelling_notes
from batchgen.launch.script import takes_gpus
from batchgen.launch.submit import scripts
from batchgen.machine import slurm
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.journal import read_journal
from batchgen.units import count

_SHARDS = 20  # the last ones, by which the speed is judged


def array_lines(
    run: RunDir, config: Config, open_shards: int, took: dict[str, Any]
) -> tuple[list[Line], list[str], UserError | None]:
    """The array and its scripts; warnings; and what the command itself would be refused for.

    `took`: the values `work_s` and `start_s` of the line on time, for the devices that the elements have; null where
    they are not known.
    """
    if config.launch.launcher != "slurm":
        return [], [], None
    warnings = spelling_notes(config.launch)
    limits: slurm.Limits | None = None
    alive: list[slurm.Element] = []
    try:
        limits = slurm.limits()
        alive = slurm.live([one.job for one in notes.submissions(run)])
    except (slurm.SlurmError, slurm.SlurmMissingError, slurm.RefusedError) as error:
        warnings.append(f"what the cluster takes is not known: {error}")
    element, check = scripts(run, config)
    lines, refused = [Line("", "", {"slurm": {"script": element, "check_script": check}})], None
    try:
        wanted = request(config.launch, open_shards, len(alive), limits)
        lines += _request_lines(wanted, open_shards)
        warnings += wanted.notes
        if took.get("work_s") is not None:
            rounds = rounds_line(took["work_s"], took.get("start_s") or 0.0, config.launch, limits)
            lines += [] if rounds is None else [Line("rounds", rounds)]
    except UserError as error:
        refused = error
    return [*lines, *_script_lines("script", element), *_script_lines("check", check)], warnings, refused


def work_of(plan: Plan, outlook: Outlook, open_shards: Collection[int]) -> tuple[float, float] | None:
    """(Seconds of work for all workers at once, seconds until one begins); None where the speed is not known.

    Where an element has a GPU, what this machine was measured at says nothing: it is by the shards that were made.
    """
    if not takes_gpus(plan.config.launch):
        return outlook.work(plan, open_shards)
    journals = [read_journal(plan.run.memory_log(shard)) for shard in sorted(plan.run.committed())[-_SHARDS:]]
    records = [record for journal in journals if journal is not None for record in journal.records]
    images = sum(record["images"] for record in records)
    if not images:
        return None
    left = sum(plan.sizes[shard].images for shard in open_shards)
    workers = min(plan.config.launch.workers or 1, len(open_shards))
    return left * sum(record["seconds"] for record in records) / images / workers, 0.0


def _request_lines(wanted: Request, open_shards: int) -> Iterator[Line]:
    most = "" if wanted.at_once is None else f", {wanted.at_once} of them at once"
    said = f"an array of {count(wanted.elements, 'element')}{most}, and a job that checks the run after it"
    nothing = "nothing would be submitted: enough elements live" if open_shards else "no shard is left to make"
    values = {
        "elements": wanted.elements,
        "elements_alive": wanted.alive,
        "array": wanted.spec if wanted.elements else None,
    }
    yield Line("slurm", said if wanted.elements else nothing, {"slurm": values})


def _script_lines(label: str, script: str) -> Iterator[Line]:
    for place, line in enumerate(script.splitlines()):
        yield Line("" if place else label, line or " ")
