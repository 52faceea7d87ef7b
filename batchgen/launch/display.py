"""What the front door shows while workers work: a bar on a terminal, plain lines elsewhere. Nothing here raises."""

import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from batchgen.launch.metrics import EVERY_S, Metrics
from batchgen.plan.store import Plan
from batchgen.shards.leases import Watch
from batchgen.shards.progress import Progress, progress_line, rate_facts, read_progress
from batchgen.units import GIB

_BAR_EVERY_S = 0.5
_FIRST_LINE_S = 10.0
_LINE_EVERY_S = 30.0
_PAUSE = 10  # times what a look takes: on a network file system it takes seconds, in which workers are not looked after
_LINE_OF_A_JOB_EVERY_S = 600.0  # a job of a night has hundreds of elements, each with a file of its own
# The time left is that of read_progress: tqdm's own goes by images, of which some take longer than others.
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Display:
    """Shows the progress of a run on stderr, by reading its directory."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._watch = Watch(plan.config.launch.lease_timeout_s)
        self._is_terminal = sys.stderr.isatty()
        self._is_job = "SLURM_JOB_ID" in os.environ
        self._next_s = self._metrics_s = 0.0
        self._peak_bytes = 0
        self._problem = ""
        self._awaited = ["loading the model"]  # until a worker says what it does
        path = plan.config.launch.metrics
        self._metrics = None if path is None else Metrics(plan, Path(path).expanduser())
        first = self._read()
        self._begun_with = first.images if first else 0
        self._bar = tqdm(
            total=plan.images,
            initial=self._begun_with,
            unit="image",
            desc=plan.config.job.name,
            disable=not self._is_terminal,
            dynamic_ncols=True,
            bar_format=_BAR,
        )

    def start(self, workers: int) -> None:
        """Say what is waited for: so many workers load the model before the first image."""
        if self._is_terminal:
            self._bar.set_postfix_str(", ".join(self._awaited))
            return
        who = "1 worker loads" if workers == 1 else f"{workers} workers load"
        self.say(f"{who} the model; {self._begun_with} of {self._plan.images} images are there, and progress follows")
        self._next_s = time.monotonic() + _FIRST_LINE_S

    def tick(self) -> None:
        """Show the progress if it is time to."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            line_every_s = _LINE_OF_A_JOB_EVERY_S if self._is_job else _LINE_EVERY_S
            self._show()
            took_s = time.monotonic() - now_s
            self._next_s = now_s + max(_BAR_EVERY_S if self._is_terminal else line_every_s, _PAUSE * took_s)
        if self._metrics is not None and now_s >= self._metrics_s:
            self._write_metrics(self._read())
            took_s = time.monotonic() - now_s
            self._metrics_s = now_s + max(EVERY_S, _PAUSE * took_s)

    def _write_metrics(self, progress: Progress | None) -> None:
        if self._metrics is not None and progress is not None:
            self._tell(self._metrics.write(progress))

    def _read(self) -> Progress | None:
        # None where it cannot be read now, for example because of a stale file handle or a damaged file
        try:
            return read_progress(self._plan, self._watch)
        except Exception as error:  # whatever it is, the work goes on
            self._tell(f"the progress cannot be shown for now: {type(error).__name__}: {error}")
            return None

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            self._problem = problem
            self.say(problem)

    def _show(self) -> None:
        progress = self._read()
        if progress is None:
            return
        if not self._is_terminal:
            self.say(progress_line(progress))
            return
        self._peak_bytes = max(self._peak_bytes, progress.peak_bytes or 0)
        facts = rate_facts(progress) + ([f"peak {self._peak_bytes / GIB:.2f} GiB"] if self._peak_bytes else [])
        if progress.starting or progress.workers or progress.images > self._begun_with:
            self._awaited = []
        self._bar.set_postfix_str(", ".join(self._awaited + facts), refresh=False)
        self._bar.n = max(self._bar.n, progress.images)
        self._bar.refresh()

    def say(self, line: str) -> None:
        """A line for the user, clear of the bar."""
        tqdm.write(f"batchgen: {line}", file=sys.stderr)

    def close(self) -> None:
        """Show the last progress and end the bar. In lines only where work was done and some is left to do."""
        progress = None if self._is_terminal and self._metrics is None else self._read()
        self._write_metrics(progress)
        if self._is_terminal or (progress is not None and self._begun_with < progress.images < self._plan.images):
            self._show()
        self._bar.close()
