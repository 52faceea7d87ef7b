"""Show how far a run is, at any time, from any terminal. It reads the run directory, which is the truth.

python -m batchgen.status RUN_DIR [--watch] [--json]
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from batchgen.console import run_dir_command
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.files import to_json
from batchgen.launch.drain import asked
from batchgen.launch.elements import ElementState, Queue, element_lines, element_states
from batchgen.launch.notes import Submission, submissions
from batchgen.paths import RunDir
from batchgen.plan.rejects import rejected_line
from batchgen.plan.store import Plan, load_plan
from batchgen.shards.copies import copies_line
from batchgen.shards.crew import Crew, Member, read_crew
from batchgen.shards.glance import Glance, glance
from batchgen.shards.leases import Watch
from batchgen.shards.progress import Progress, progress_line, progress_of
from batchgen.shards.roster import roster
from batchgen.units import count

_LISTED = 10  # of the failed images
# How often --watch looks: on a terminal it draws again, elsewhere it adds a line, and the lines are to be few.
_DRAW_EVERY_S, _LINE_EVERY_S = 1.0, 30.0
_LISTEN_S = 0.05
_LOOKS_APART = 10  # times what a look takes
_FLAGS = {
    "--watch": "look again and again until the run is done; Ctrl-C ends it, and the run goes on",
    "--json": "one JSON object in one line, with --watch one line each time",
}


@dataclass(frozen=True, slots=True)
class Status:
    """What a run's directory says now, and what squeue says beside it where there is one."""

    plan: Plan
    progress: Progress
    glance: Glance
    crew: Crew
    arrays: list[Submission]
    elements: list[ElementState]
    queue: Queue
    asked: str | None  # who asked all workers to end

    @property
    def state(self) -> str:
        """broken, done, running, starting, queued or not running."""
        if self.glance.states.broken:
            return "broken"
        if not self.glance.states.open:
            return "done"
        if self.progress.workers:
            return "running"
        if self.progress.starting:
            return "starting"
        return "queued" if any(one.does.startswith("waiting") for one in self.elements) else "not running"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be made."""
        return not self.glance.states.open

    @property
    def code(self) -> int:
        """The exit code: 0 only if the run is whole."""
        states = self.glance.states
        if states.broken or states.open:
            return EXIT_BROKEN if states.broken else EXIT_INTERRUPTED
        return EXIT_WHOLE_WITH_FAILURES if self.glance.failed_images else EXIT_WHOLE

    def values(self) -> dict[str, Any]:
        """What --json prints: times in s, sizes in bytes."""
        progress = asdict(self.progress)
        for worker in progress["starting"]:
            worker["for_s"] = round(max(0.0, time.time() - worker.pop("since_s")), 1)
        broken = self.glance.states.broken
        return {
            "run_dir": str(self.plan.run.root),
            "state": self.state,
            **progress,
            "broken_shards": {f"{shard:06d}": problem for shard, problem in broken.items()},
            "failed_images": self.glance.failed,
            "failed_images_count": self.glance.failed_images,
            "shards_looked_at": self.glance.looked_at,
            "rejected_rows": sum(segment.rejects for segment in self.plan.segments),
            "crew": [_member_values(member) for member in self.crew.members],
            "elements": [asdict(element) for element in self.elements],
            "squeue_problem": self.queue.problem,
            "asked_to_end": self.asked,
            "copies": copies_line(self.plan),
            "ends_at": self._ends_at(),
            "exit_code": self.code,
            "as_of": _now(),
        }

    def lines(self) -> list[str]:
        """What a person reads."""
        plan, progress, states = self.plan, self.progress, self.glance.states
        lines = [f"{plan.run.root}: {self._said()}", progress_line(progress)]
        if states.broken:
            lines.append(states.complaint(plan.run))
        else:
            lines += self._failed_lines()
            if (left := progress.planned_shards - progress.shards) > 0:
                lines.append(
                    f"{count(left, 'shard')} {'is' if left == 1 else 'are'} left: "
                    f"up to {count(left, 'worker')} can be busy at once"
                )
        lines += filter(None, (rejected_line(plan), copies_line(plan)))
        if not self.is_over:
            lines += [] if self.asked is None else [f"{self.asked}; the same command as before starts workers again"]
            lines += [*element_lines(self.arrays, self.elements, self.queue), *roster(self.crew)]
        if self.glance.is_partial:
            lines.append(
                f"the newest {self.glance.looked_at} shards were looked at, the others go by their names: "
                f"python -m batchgen.verify {plan.run.root} looks at all"
            )
        return [*lines, f"as of {_now()}"]

    def _ends_at(self) -> str | None:
        """The local time at which all will be made, as far as that is known."""
        if self.progress.eta_s is None or self.is_over:
            return None
        return (datetime.now() + timedelta(seconds=self.progress.eta_s)).astimezone().isoformat(timespec="seconds")

    def _failed_lines(self) -> list[str]:
        found = self.glance
        rejects = sum(segment.rejects for segment in self.plan.segments)
        failed = count(found.failed_images if found.failed_images is not None else len(found.failed), "failed image")
        if found.failed_images is None:
            failed += f" in the newest {found.looked_at} of {len(found.finished):,} finished shards"
        listed = list(found.failed.items())[:_LISTED]
        return [f"{failed}, {count(rejects, 'rejected row')}", *(f"  {key}: {reason}" for key, reason in listed)]

    def _said(self) -> str:
        broken = self.glance.states.broken
        if self.state == "broken":
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            return f"broken: {next(iter(broken.values()))}{more}"
        if self.state == "running":
            return f"{count(self.progress.workers, 'worker')} running"
        return f"{count(len(self.progress.starting), 'worker')} starting" if self.state == "starting" else self.state


def _member_values(member: Member) -> dict[str, Any]:
    values = asdict(member)
    del values["since_s"]  # by the file server's clock
    return values | {"seen_s": None if member.seen_s is None else round(member.seen_s, 1)}


def _now() -> str:
    return datetime.now().isoformat(sep=" ", timespec="seconds")


def read_status(run: RunDir, watch: Watch | None = None, before: Status | None = None) -> Status:
    """The status of a run; see `read_progress` for `watch`. What `before` knows is not read again.

    Raises BatchgenError and OSError.
    """
    plan = load_plan(run)
    queue = Queue() if before is None else before.queue
    arrays = submissions(run)
    queue.ask([job for array in arrays for job in (array.job, array.collector) if job])
    crew = read_crew(run, watch or Watch(plan.config.launch.lease_timeout_s))
    seen = glance(plan, None if before is None else before.glance)
    progress = progress_of(plan, crew, seen.finished)
    queue.wait()
    elements = element_states(arrays, crew.members, queue.listed)
    return Status(plan, progress, seen, crew, arrays, elements, queue, asked(run))


def show(run: RunDir, json: bool = False, watch: bool = False) -> int:
    """Print the status of a run; return 0 only if the run is whole. Raises BatchgenError.

    With `watch` it looks again until the run is done, or Ctrl-C.
    """
    if watch:
        return _watch(run, json)
    status = read_status(run)
    print(to_json(status.values()) if json else "\n".join(status.lines()))
    return status.code


def _watch(run: RunDir, json: bool) -> int:
    leases = Watch(load_plan(run).config.launch.lease_timeout_s)
    draws = sys.stdout.isatty() and not json
    drawn, status = 0, None
    with _ctrl_c() as pressed:
        while not pressed:
            began_s = time.monotonic()
            with suppress(OSError):  # a network file system may fail for a moment
                status = read_status(run, leases, status)
                if draws:
                    drawn = _draw(status.lines(), drawn)
                else:
                    print(_printed(status, json), flush=True)
                if status.is_over:
                    break
            # Where a look takes long, because the run is large or its file server slow, there are fewer of them.
            pause_s = max(_DRAW_EVERY_S if draws else _LINE_EVERY_S, _LOOKS_APART * (time.monotonic() - began_s))
            again_s = time.monotonic() + pause_s
            while not pressed and time.monotonic() < again_s:
                time.sleep(_LISTEN_S)
    return EXIT_INTERRUPTED if status is None else status.code


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Note Ctrl-C in the list, instead of raising it: an exception in the midst of a line would print it twice."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _printed(status: Status, json: bool) -> str:
    if json:
        return to_json(status.values())
    return "\n".join(status.lines()) if status.is_over else _line(status)


def _line(status: Status) -> str:
    return f"{_now()}  {status.state}: {progress_line(status.progress)}"


def _draw(lines: list[str], drawn: int) -> int:
    """Draw the lines over the `drawn` rows of the last time; return how many rows there are now."""
    columns = shutil.get_terminal_size().columns
    rows = [row[: max(1, columns - 1)] for line in lines for row in line.splitlines()]
    sys.stdout.write((f"\x1b[{drawn}F" if drawn else "") + "".join(f"{row}\x1b[K\n" for row in rows) + "\x1b[J")
    sys.stdout.flush()
    return len(rows)


if __name__ == "__main__":
    sys.exit(run_dir_command("status", "Show how far a run is.", show, flags=_FLAGS))
