"""`batchgen cancel RUN_DIR`: ask all workers of a run, on all machines, to end after what is under way."""

import getpass
import json
import socket
import sys

from batchgen.console import run_dir_command, say
from batchgen.errors import EXIT_WHOLE
from batchgen.events import now
from batchgen.files import replace
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.shards.crew import AT_WORK, read_crew
from batchgen.shards.leases import Watch
from batchgen.shards.progress import shard_states
from batchgen.units import count


def cancel(run: RunDir) -> int:
    """Leave the note that asks all workers to end, and cancel what was submitted; return the exit code.

    It does not wait for the workers. Raises UserError where there is no run, and BatchgenError.
    """
    plan = load_plan(run)
    if not shard_states(plan).open:
        say(f"{run.root} is over: nothing is left to make")
        return EXIT_WHOLE
    who = {"by": f"{_user()} on {socket.gethostname()}", "at": now()}
    replace(run.stop, (json.dumps(who) + "\n").encode())
    crew = read_crew(run, Watch(plan.config.launch.lease_timeout_s))
    at_work = sum(member.state in AT_WORK for member in crew.members)
    say(
        f"{count(at_work, 'worker')} asked to end after what is under way; `batchgen status {run.root}` shows "
        "when none is left, and the same command goes on"
    )
    if run.slurm.is_dir():
        from batchgen.launch.submit import cancel_submitted

        cancel_submitted(run, say)
    return EXIT_WHOLE


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return "somebody"


def main() -> int:
    """The command line; returns the exit code."""
    return run_dir_command("cancel", "Ask all workers of a run, on all machines, to end.", cancel)


if __name__ == "__main__":
    sys.exit(main())
