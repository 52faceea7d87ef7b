"""launch.wait=true: stay until the array that was submitted has made the run whole, or nothing of it lives any more."""

import time

from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE
from batchgen.launch.display import Display
from batchgen.launch.notes import submissions
from batchgen.machine import slurm
from batchgen.machine.process import StopEvent
from batchgen.plan.store import Plan

_TICK_S = 0.5
_ASK_S = 30.0  # between two questions to the queue
_GONE_AFTER = 2  # so many answers in a row without an element count, since one that is put back is away for a while


def wait(plan: Plan, display: Display, stop: StopEvent, ask_s: float = _ASK_S) -> int:
    """Show the progress until every shard is committed; return EXIT_WHOLE then, else EXIT_INTERRUPTED.

    It also ends when nothing lives in the queue, or when `stop` is set; the jobs go on then.
    """
    absent, next_s = 0, time.monotonic() + ask_s
    try:
        while not _is_whole(plan):
            if stop.is_set():
                display.say("the array goes on without this command; the cancel command ends it")
                return EXIT_INTERRUPTED
            if absent >= _GONE_AFTER:
                open_shards = plan.shard_count - len(plan.run.committed())
                display.say(f"no element is left, and {open_shards} shards are open: the same command submits more")
                return EXIT_INTERRUPTED
            display.tick()
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + ask_s
                absent = absent + 1 if _is_empty(plan, display) else 0
            time.sleep(_TICK_S)
    finally:
        display.close()
    return EXIT_WHOLE


def _is_whole(plan: Plan) -> bool:
    return plan.run.committed() >= set(range(plan.shard_count))


def _is_empty(plan: Plan, display: Display) -> bool:
    # Where SLURM does not answer, nothing is known, and the files go on to tell the progress.
    try:
        return not slurm.live([one.job for one in submissions(plan.run)])
    except slurm.SlurmError as error:
        display.say(str(error))
        return False
