"""launch=slurm: one array of elements and one job that checks the run are submitted, then this command is done.

An array is submitted held. Its number is noted in slurm/ under the next free name, and only who got the name releases
its array: of two commands at once the other one cancels its own. The same command again submits what lacks.
"""

import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from batchgen.config.schema import Config
from batchgen.console import typed_as
from batchgen.errors import EXIT_WHOLE, ConfigError
from batchgen.files import replace
from batchgen.launch import notes
from batchgen.launch.arrays import Request, request, rounds_line
from batchgen.launch.notes import Submission
from batchgen.launch.script import Here, collector_script, element_script, environment
from batchgen.machine import slurm
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.units import count

Say = Callable[[str], None]


def submit(plan: Plan, open_shards: Collection[int], work_s: tuple[float, float] | None, say: Say) -> int:
    """Submit what the run lacks of elements, say what was done, and return the exit code.

    `work_s`: (seconds of work if all workers work at once, seconds until one begins), None where that is not known.
    Raises UserError and SlurmError; nothing of this command is left in the queue then.
    """
    run, launch = plan.run, plan.config.launch
    before = notes.submissions(run)
    limits = slurm.limits()
    alive = _release_held(before, slurm.live([one.job for one in before]), say)
    wanted = request(launch, len(open_shards), len(alive), limits)
    for line in wanted.notes:
        say(line)
    if not wanted.elements:
        arrays = ", ".join(sorted({element.job for element in alive}))
        say(f"{count(len(alive), 'element')} of array {arrays} live, which is enough: {told_of_queue(alive)}")
        _tell(run, before[-1], say)
        return EXIT_WHOLE
    if alive:
        more = f"{count(wanted.elements, 'element')} {'is' if wanted.elements == 1 else 'are'} added"
        say(f"{count(len(alive), 'element')} of {wanted.wanted} live; {more}")
    made = _submit(plan, wanted, before, sorted({element.job for element in alive}), say)
    if made is None:
        winner = notes.submissions(run)[len(before)]
        say(f"another command submitted array {winner.job} for this run at the same time; this one's was cancelled")
        _tell(run, winner, say)
        return EXIT_WHOLE
    say(f"array {made.job} was submitted: {count(made.elements, 'element')} (--array={wanted.spec})")
    work = None if work_s is None else rounds_line(work_s[0], work_s[1], launch, limits)
    if work is not None:
        say(work)
    _tell(run, made, say)
    return EXIT_WHOLE


def scripts(run: RunDir, config: Config) -> tuple[str, str]:
    """The batch scripts of a run: of an element, and of the check at the end."""
    here = Here(sys.executable, Path.cwd(), config.job.name)
    return element_script(run, config.launch, here), collector_script(run, config.launch, here)


def cancel_submitted(run: RunDir, say: Say, running: bool = False) -> list[str]:
    """Take what waits in the queue for this run out of it, and with `running` what runs too; the ids of the jobs.

    The jobs that check the run go with the last of them. Raises SlurmError and SlurmMissingError.
    """
    before = notes.submissions(run)
    if not before:
        return []
    alive = slurm.live([one.job for one in before])
    chosen = [element for element in alive if running or element.state != "RUNNING"]
    if chosen:
        jobs = sorted({element.job for element in chosen})
        slurm.cancel(jobs, *([] if running else ["--state=PENDING"]))
        gone = f"{'was' if len(chosen) == 1 else 'were'} cancelled"
        say(f"{count(len(chosen), 'element')} of array {', '.join(jobs)} {gone}")
    left = [element for element in alive if element not in chosen]
    if not left:
        slurm.cancel([one.collector for one in before if one.collector])
    if left:
        say(f"{told_of_queue(left)}: they end after what is under way")
    elif not alive:
        say("nothing that was submitted for this run is in the queue")
    return [element.id for element in chosen]


def _submit(
    plan: Plan, wanted: Request, before: Sequence[Submission], alive: Sequence[str], say: Say
) -> Submission | None:
    """Submit the array and its check, note them and let the array go; None where another command was first."""
    run, options = plan.run, plan.config.launch.slurm
    element, check = scripts(run, plan.config)
    notes.logs_dir(run).mkdir(parents=True, exist_ok=True)
    try:
        if (doubt := slurm.doubt(element, environment(element, os.environ))) is not None:
            say(f"no node that works now could run an element, so the array waits for others: {doubt}")
        job = slurm.submit(element, "--hold", f"--array={wanted.spec}", environ=environment(element, os.environ))
    except slurm.RefusedError as error:
        raise ConfigError(_refused(str(error), options)) from error
    collector = ""
    try:
        collector = slurm.submit(
            check, f"--dependency=afterany:{':'.join([*alive, job])}", environ=environment(check, os.environ)
        )
        run.slurm.mkdir(exist_ok=True)
        if notes.note(run, before, job, wanted.elements, collector):
            replace(run.slurm / "job.sh", element.encode())
            replace(run.slurm / "check.sh", check.encode())
            slurm.release(job)
            return notes.submissions(run)[len(before)]
    except slurm.RefusedError as error:
        slurm.cancel([job])
        raise ConfigError(
            f"{error}: the job that checks the run was refused, so nothing was submitted: launch.collector holds its "
            "options where they differ from launch.slurm"
        ) from error
    except BaseException:
        _cancel_quietly(run, before, [job, collector])
        raise
    slurm.cancel([job, collector])
    return None


def _cancel_quietly(run: RunDir, before: Sequence[Submission], jobs: Sequence[str]) -> None:
    """Cancel what this command submitted, as far as SLURM answers, unless it is noted: then it counts and goes on."""
    if len(notes.submissions(run)) > len(before) and notes.submissions(run)[len(before)].job == jobs[0]:
        return
    try:
        slurm.cancel([job for job in jobs if job])
    except slurm.SlurmError:
        return


def _release_held(before: Sequence[Submission], alive: list[slurm.Element], say: Say) -> list[slurm.Element]:
    """Let go what a command submitted and, killed, did not release: all elements of an array that are held."""
    for one in before:
        own = [element for element in alive if element.job == one.job]
        if len(own) == one.elements and all(element.is_held for element in own):
            slurm.release(one.job)
            say(f"array {one.job} was held and is released")
    return alive


def _refused(told: str, options: dict[str, object]) -> str:
    """What sbatch said, with what may be meant where it does not know an option."""
    if "nrecognized option" in told:
        from batchgen.config.sbatch import meant_options

        for name in options:
            if f"--{name}" in told and (meant := meant_options(name)):
                return f"launch.slurm.{name}: sbatch has no such option; did you mean {' or '.join(meant)}?"
    return f"{told}; the options are those of launch.slurm, and dry_run=true shows the script"


def _tell(run: RunDir, made: Submission, say: Say) -> None:
    if made.collector:
        say(f"job {made.collector} checks the run when the array is over; it ends with 0 only if the run is whole")
    where = shlex.quote(str(run.root))
    say(f"{typed_as('status')} {where} shows the progress, {typed_as('cancel')} {where} ends it")


def told_of_queue(elements: Sequence[slurm.Element]) -> str:
    """What a person wants to know of elements: 3 run, 5 wait (Resources)."""
    running = sum(element.state == "RUNNING" for element in elements)
    reasons: dict[str, None] = dict.fromkeys(e.reason for e in elements if e.state == "PENDING" and e.reason)
    waiting = len(elements) - running
    said = f"{count(running, 'element')} {'runs' if running == 1 else 'run'}"
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"{said}, {waiting} {'waits' if waiting == 1 else 'wait'}{why}"
