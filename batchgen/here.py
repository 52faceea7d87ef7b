"""What one process does with a planned run on this machine: start workers, show how far they are, finish the run.

The front door, `batchgen join` and each rank of a group come here.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from batchgen.console import say
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE, BrokenRunError
from batchgen.evening.outlook import Outlook
from batchgen.evening.start import check_disk, keep_run
from batchgen.files import supports_link, sync_directory
from batchgen.launch import local
from batchgen.launch.ahead import Ahead
from batchgen.launch.copying import copying
from batchgen.launch.deadline import deadline
from batchgen.launch.display import Display
from batchgen.launch.drain import Drain
from batchgen.launch.local import Crew, Share
from batchgen.launch.notable import Notable
from batchgen.launch.requeue import job_of, requeue
from batchgen.launch.spare import Spare
from batchgen.machine.gpus import Gpu
from batchgen.machine.process import StopEvent, catch_signals, started_s, worker_name
from batchgen.memory.forecast import refused_on
from batchgen.memory.frozen import task_of
from batchgen.models.find import download, find_model, in_cache
from batchgen.paths import RunDir
from batchgen.plan.recipe import computed_otherwise
from batchgen.plan.rejects import rejected_line
from batchgen.plan.replan import at_work
from batchgen.plan.store import Plan
from batchgen.report.write import is_last, write_all
from batchgen.shards import index
from batchgen.shards.attempt import sweep
from batchgen.shards.finish import Outcome, finish, outcome
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.progress import shard_states

_SPARE_EVERY_S = 5.0
_NOTABLE_EVERY_S = 2.0
_FINISH_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Outset:
    """What is known before the workers start: the GPUs, the most able first, and how long the work will take.

    `began_s`: when the process began to prepare, in s since the epoch.
    """

    gpus: list[Gpu]
    outlook: Outlook
    began_s: float

    @property
    def devices(self) -> list[str]:
        """The GPUs, as CUDA_VISIBLE_DEVICES names them."""
        return [gpu.device for gpu in self.gpus]


@dataclass(frozen=True, slots=True)
class Part:
    """What a process does beside its workers.

    `shows`: it shows the progress of the run and says how the run ended. `shares`: other processes work on the run,
    too, and one of them finishes it. `frees`: it leaves when others make all that is left, and puts itself back into
    SLURM's queue when its time is over. `parent`: the process that started it as one of several ranks, without which it
    does not go on.
    """

    shows: bool = True
    shares: bool = False
    frees: bool = False
    parent: int | None = None


def over(plan: Plan) -> int | None:
    """Finish a run without open shards, and say how it went; return the exit code. None where shards are open.

    Raises BrokenRunError where a committed shard is broken and nothing is left to make.
    """
    states = shard_states(plan)
    if states.open:
        return None
    if not states.broken and index.is_current(plan):
        code = _tell(outcome(plan, "is already done"))
    else:
        code = _tell(finish(plan))
        _report(plan)
    return code if plan.config.output.copy_to is None else _copy_rest(plan, code)


def _copy_rest(plan: Plan, code: int) -> int:
    """Copy what lacks a copy of a run that is whole; return the exit code."""
    stop = StopEvent()
    catch_signals(stop, second_ctrl_c_ends=True)
    Drain(plan.run, stop, deadline(plan.config.launch, os.environ, started_s())).look_on()
    with copying(plan, say) as copies:
        return copies.finish(stop, code)


def set_out(plan: Plan, gpus: Sequence[Gpu], began_s: float) -> Outset:
    """Say what one should know before the work begins. A hub model that is not in the cache is fetched.

    Raises UserError where no GPU or the disk can hold the job, or the model cannot be had, and DownloadError.
    """
    if in_cache(plan.config.model) is None:  # a run may go on where its model is not here yet
        download(plan.config.model)
    states = shard_states(plan)
    broken = f"{states.harm()}; the other shards are made all the same" if states.broken else None
    computes = computed_otherwise(plan.computes, plan.config.job.scheduler)
    for line in filter(None, (computes, rejected_line(plan), broken)):
        say(line)
    able = _able_first(plan, gpus)
    outset = Outset(able, Outlook.of_plan(plan, able), began_s)
    check_disk(plan, states.open, outset.outlook, say)
    return outset


def furnish(plan: Plan) -> bool:
    """Make the directories of the run; return whether several workers may write there: it has hard links."""
    plan.run.create_directories()
    _make_durable(plan.run)
    return supports_link(plan.run.work)


def work(plan: Plan, outset: Outset, share: Share, part: Part, ahead: Ahead | None = None) -> int:
    """Start this process's share of the workers, wait for them and finish the run; return the exit code.

    `ahead`: the processes that were begun before the plan was there.
    """
    sweep(plan.run)
    launched_s = time.time()
    turn = _Turn(plan, share, part, ahead or Ahead())
    with copying(plan, turn.say) as copies:
        code = turn.launch()
        end, is_mine = None, not turn.is_spare
        if code == EXIT_WHOLE and not turn.is_spare:
            end, is_mine = _finish_once(plan) if part.shares else (_finish(plan), True)
        keep_run(plan, outset.outlook, outset.began_s, launched_s, is_over=end is not None)
        if end is None:
            turn.say_end(code)
        else:
            code = _tell(end) if part.shows else end.code
        if is_mine and (end is not None or is_last(plan)):
            _report(plan)
        if turn.is_spare:
            return code  # who makes the rest copies it
        turn.drain.look_on()
        return copies.finish(turn.stop, code, part.frees)


class _Turn:
    """The workers of this process, and what may end them early."""

    def __init__(self, plan: Plan, share: Share, part: Part, ahead: Ahead) -> None:
        self._plan, self._share, self._part = plan, share, part
        self.stop = StopEvent()
        # What starts ranks hands Ctrl-C on to those who have heard it already.
        catch_signals(self.stop, second_ctrl_c_ends=part.parent is None)
        # Of a sweep, each run comes after others: its time is that of the process.
        ends = deadline(plan.config.launch, os.environ, started_s())
        self.drain = Drain(plan.run, self.stop, ends, part.parent)
        self._display = Display(plan) if part.shows else None
        self.say = _unheard if self._display is None else self._display.say  # rank 0 says it for all
        heard = say if self._display is None else self._display.say
        self._crew = Crew(plan, share, heard, ahead.hand_over)
        self._spare = Spare(plan) if part.frees and plan.config.launch.wait_for_others else None
        self._look_every_s = min(_SPARE_EVERY_S, plan.config.launch.lease_timeout_s / 4)
        self._look_s = time.monotonic() + self._look_every_s
        self.is_spare = False
        self._notable, self._notable_s = Notable(plan.run), 0.0

    def launch(self) -> int:
        """Start the workers and wait for them; return the exit code. Raises ResumeError for a plan that gave way."""
        self.drain.look()
        if self.stop.why is not None:
            self.say(f"{self.stop.why}: nothing is begun here")
            return EXIT_INTERRUPTED
        if self._display is not None:
            in_group = self._part.parent is not None
            self._display.start(self._share.world if in_group else len(self._share.ranks))
        try:
            with at_work(self._plan):
                code = local.launch(self._crew, self.stop, self._tick, self.say)
        finally:
            self._tell_notable(every_s=0.0)
            if self._display is not None:
                self._display.close()
        return EXIT_WHOLE if self.is_spare and code == EXIT_INTERRUPTED else code

    def _tick(self) -> None:
        if self._display is not None:
            self._display.tick()
        self._tell_notable(every_s=_NOTABLE_EVERY_S)
        self.drain.look()
        if self._spare is None or self.stop.is_set() or time.monotonic() < self._look_s:
            return
        self._look_s = time.monotonic() + self._look_every_s
        if self._spare.is_spare(self._crew.names):
            self.is_spare = True
            self.stop.ask("other workers make all that is left")

    def _tell_notable(self, every_s: float) -> None:
        if time.monotonic() >= self._notable_s + every_s:
            self._notable_s = time.monotonic()
            for line in self._notable.look(self._crew.names):
                self.say(line)

    def say_end(self, code: int) -> None:
        """Say how the work ended here before the run is whole; a job whose time is over is put back into the queue."""
        if code == EXIT_INTERRUPTED:
            self.say("interrupted; what is finished is kept, and the same command goes on")
            self._requeue()

    def _requeue(self) -> None:
        is_over = self.drain.by_limit or self.stop.by == "SIGUSR1"
        job = job_of(os.environ) if self._part.frees and is_over and self._plan.config.launch.requeue else None
        if job is None or self._crew.is_whole():
            return
        if self._crew.made_anything():
            requeue(job, say)
        else:
            say(f"job {job} made nothing in its time and does not go back into the queue: give it more time")


def _unheard(_: str) -> None:
    return


def _finish(plan: Plan) -> Outcome:
    """Finish a run; one that is broken gets its report, too. Raises what `finish` raises."""
    try:
        return finish(plan)
    except BrokenRunError:
        _report(plan)
        raise


def _report(plan: Plan) -> None:
    for line in write_all(plan.run):
        say(line)


def _finish_once(plan: Plan) -> tuple[Outcome, bool]:
    """Finish a run that other processes finish, too: one does it and the others wait; whether it was this one.

    Raises what `finish` raises.
    """
    watch = Watch(plan.config.launch.lease_timeout_s)
    while not index.is_current(plan):
        lease = Lease.take_named(plan.run.finish_lease, worker_name(0), watch)
        if lease is not None:
            try:
                return _finish(plan), True
            finally:
                lease.release()
        time.sleep(_FINISH_POLL_S)
    return outcome(plan, "is done"), False


def _make_durable(run_dir: RunDir) -> None:
    """Make the names of the run's directories durable: a power cut must not take one with all that is in it."""
    sync_directory(run_dir.worker_logs.parent)
    sync_directory(run_dir.root)
    for directory in run_dir.root.absolute().parents:  # this command, or one that was killed, made some of them
        with suppress(OSError):  # some directories above may be entered but not read
            sync_directory(directory)


def _able_first(plan: Plan, gpus: Sequence[Gpu]) -> list[Gpu]:
    """The GPUs, those that cannot do the job last, each with a line that says why. Raises the reason if none can."""
    config, model = plan.config, find_model(plan.config.model)
    if model is None:
        return list(gpus)
    tasks = [task_of(config, config.job.width, config.job.height)]
    refused = refused_on(config, gpus, model, str(plan.recipe["model"]), tasks)
    for device, reason in refused.items():
        say(f"GPU {device} cannot do this job: {reason}")
    return sorted(gpus, key=lambda gpu: gpu.device in refused)


def _tell(end: Outcome) -> int:
    for line in end.lines:
        say(line)
    return end.code
