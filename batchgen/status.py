"""Show how far a run is, at any time, from any terminal. It reads the run directory, which is the truth.

python -m batchgen.status RUN_DIR
"""

import sys
from datetime import datetime

from batchgen.console import run_dir_command
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.paths import RunDir
from batchgen.plan.rejects import rejected_line
from batchgen.plan.store import load_plan
from batchgen.shards.progress import ShardStates, failed_samples, progress_line, read_progress, shard_states


def show(run: RunDir) -> int:
    """Print the status of a run; return 0 only if the run is whole. Raises BatchgenError."""
    plan = load_plan(run)
    progress, states = read_progress(plan), shard_states(plan)
    print(f"{run.root}: {_state(states, progress.workers)}")
    print(progress_line(progress))
    if states.broken:
        print(states.complaint(run))
    else:
        failed = failed_samples(plan)
        print(f"{len(failed)} failed images, {sum(segment.rejects for segment in plan.segments)} rejected rows")
        for key, reason in list(failed.items())[:10]:
            print(f"  {key}: {reason}")
        if (left := progress.planned_shards - progress.shards) > 0:
            print(f"{left} shards are left: up to {left} workers can be busy at once")
    if (rejected := rejected_line(plan)) is not None:
        print(rejected)
    print(f"as of {datetime.now().isoformat(sep=' ', timespec='seconds')}")
    if states.broken or states.open:
        return EXIT_BROKEN if states.broken else EXIT_INTERRUPTED
    return EXIT_WHOLE_WITH_FAILURES if failed else EXIT_WHOLE


def _state(states: ShardStates, workers: int) -> str:
    if states.broken:
        more = f" (and {len(states.broken) - 1} more)" if len(states.broken) > 1 else ""
        return f"broken: {next(iter(states.broken.values()))}{more}"
    if not states.open:
        return "done"
    return f"{workers} workers running" if workers else "not running"


if __name__ == "__main__":
    sys.exit(run_dir_command("status", "Show how far a run is.", show))
