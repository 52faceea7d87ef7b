"""What launch=slurm would submit, as lines of a dry run."""

from collections.abc import Iterator
from typing import Any

from batchgen.config.schema import Config
from batchgen.errors import UserError
from batchgen.evening.lines import Line
from batchgen.launch import notes
from batchgen.launch.arrays import Request, request, rounds_line, spelling_notes
from batchgen.launch.submit import scripts
from batchgen.machine import slurm
from batchgen.paths import RunDir
from batchgen.units import count


def array_lines(
    run: RunDir, config: Config, open_shards: int, took: dict[str, Any]
) -> tuple[list[Line], list[str], UserError | None]:
    """The array and its scripts; warnings; and what the command itself would be refused for.

    `took`: the values `work_s` and `start_s` of the line on time, null where they are not known.
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
