"""A worker's door: one process on one device. It needs the run directory, its rank and the number of workers.

python -m batchgen.worker RUN_DIR RANK WORLD
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from batchgen.console import Parser, open_console
from batchgen.engine import Engine
from batchgen.errors import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_WHOLE,
    BatchgenError,
    BrokenRunError,
    from_os_error,
    in_one_line,
)
from batchgen.launch.deadline import deadline
from batchgen.launch.drain import Drain
from batchgen.machine.process import StopEvent, catch_signals, started_s, stop_with_parent, worker_name
from batchgen.paths import RunDir
from batchgen.plan.replan import at_work
from batchgen.plan.store import Plan, load_plan
from batchgen.report.write import write_all
from batchgen.shards.finish import finish_alone
from batchgen.worker.loop import Worker, load_engine
from batchgen.worker.standby import get_ready, leave_out_unused, stand_by


def main(load: Callable[[Plan], Engine] = load_engine, prepare: Callable[[str], None] = get_ready) -> int:
    """The worker's command line; returns the exit code. `prepare` is what it does ahead (--ahead)."""
    open_console()
    parser = Parser("worker", "Work on a planned run.")
    parser.add_argument("run_dir", type=Path, help="the directory of a run, such as outputs/mars_batch")
    parser.add_argument("rank", type=int, help="this worker's number: 0, 1, ... up to WORLD - 1")
    parser.add_argument("world", type=int, help="how many workers there are")
    parser.add_argument("--tied", action="store_true", help="stop when standard input ends")
    parser.add_argument("--name", help="of this worker alone; one is made up without")
    parser.add_argument(
        "--ahead", metavar="CLASSES", help="import these, and wait on standard input to be told to go on"
    )
    options = parser.parse_args()
    if options.world < 1 or not 0 <= options.rank < options.world:
        parser.error(f"WORLD is at least 1 and RANK is 0 to WORLD - 1, got {options.rank} {options.world}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the front door downloads; workers never do
    if options.world > 1:
        # Threads that spin while they wait take the cores from the other workers: 4 on 2 cores took 102 s, then 23.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    leave_out_unused()
    printed = b""
    if options.ahead is not None:
        options.world, printed = stand_by(lambda: prepare(options.ahead))
    stop = StopEvent()
    catch_signals(stop)
    if options.tied:
        stop_with_parent(stop)
    try:
        name = options.name or worker_name(options.rank)
        plan = load_plan(RunDir(options.run_dir))
        plan.run.create_directories()
        if not options.tied:  # else whoever it is tied to looks when it is to end
            Drain(plan.run, stop, deadline(plan.config.launch, os.environ, started_s())).look_on()
        worker = Worker(plan, name, options.rank, options.world, load, stop)
        real_stderr = _quiet(plan.run.worker_output(name))
        os.write(2, printed)
    except (BatchgenError, OSError) as error:
        known = from_os_error(error, options.run_dir) if isinstance(error, OSError) else error
        print(f"worker {options.rank}: {known}", file=sys.stderr)
        return known.exit_code
    try:
        with at_work(plan):
            code = worker.work()
        if stop.why is not None and code == EXIT_INTERRUPTED:
            _say(real_stderr, f"worker {options.rank}: {stop.why}; the same command as before starts workers again\n")
        if code == EXIT_WHOLE and not options.tied:  # else whoever it is tied to finishes the run
            return finish_alone(plan, lambda line: _say(real_stderr, f"worker {options.rank}: {line}\n"), write_all)
        return code
    except Exception as error:
        explained = _explained(error, options.run_dir)
        is_crash = explained is None
        worker.log.add("error", error=str(error), crashed=is_crash, traceback=traceback.format_exc())
        kind = f"{type(error).__name__}: " if str(error).strip() else ""
        _say(
            real_stderr,
            f"worker {options.rank}: {explained or f'{kind}{in_one_line(error)} (more in {worker.log.path})'}\n",
        )
        if options.tied and isinstance(explained, BrokenRunError):
            return EXIT_REFUSED
        return explained.exit_code if explained else EXIT_BROKEN


def _quiet(path: Path) -> int:
    """Send what this process and its libraries print to a log; return a descriptor of the real stderr."""
    real = os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return real


def _explained(error: Exception, run_dir: Path) -> BatchgenError | None:
    """The error as one whose message is enough; None for one that needs its traceback."""
    if isinstance(error, FileNotFoundError) and run_dir in Path(str(error.filename)).parents:
        what = f"{error.filename} or its directory was removed while it was in use"
        return BatchgenError(f"{what}; what is finished is kept, and the same command goes on")
    if isinstance(error, OSError) and type(known := from_os_error(error, run_dir)) is not BatchgenError:
        return known
    return error if isinstance(error, BatchgenError) else None


def _say(fd: int, line: str) -> None:
    try:
        os.write(fd, line.encode(errors="backslashreplace"))
    except OSError:
        return  # whoever listened is gone


if __name__ == "__main__":
    sys.exit(main())
