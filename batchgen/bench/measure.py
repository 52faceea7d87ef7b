"""The loop of a bench: row after row, each known, left out or measured, shown and written as it comes."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchgen.bench import kept, table
from batchgen.bench.apart import ask
from batchgen.bench.expected import row_s
from batchgen.bench.job import Job
from batchgen.bench.own import write_prompts
from batchgen.bench.rows import Row, why_left_out
from batchgen.console import say
from batchgen.errors import EXIT_BROKEN, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.files import replace, to_json
from batchgen.machine.process import StopEvent
from batchgen.models.fingerprint import fingerprint_model
from batchgen.units import count, duration


class Bench:
    """The rows of one job. `to`: where the JSON goes; `again`: measure also what is known."""

    def __init__(self, job: Job, rows: Sequence[Row], to: Path, again: bool, stop: StopEvent) -> None:
        self._job, self._rows, self._to, self._stop = job, rows, to, stop
        self._fingerprint = fingerprint_model(job.model)
        self._keys = {row.name: kept.key_of(job, row, self._fingerprint) for row in rows}
        self._known: dict[str, dict[str, Any]] = {}
        for row in rows:
            why = why_left_out(row, job.place, job.family, job.config.speed)
            known = None if again else kept.load(self._keys[row.name])
            if (answer := known if why is None else {"left_out": why}) is not None:
                self._known[row.name] = answer
        self._open = [row for row in rows if row.name not in self._known]
        self._expected_s: dict[str, float] = {}
        self._found: list[tuple[Row, dict[str, Any]]] = []

    def foretell(self) -> None:
        """Say what will be measured, and how long it takes. Raises ModelError, and StoppedError."""
        print(table.title(self._job), flush=True)
        known = sum("left_out" not in one for one in self._known.values())
        if not self._open:
            say(f"{count(known, 'row')} known from before; --again measures anew")
            return
        fast = ask({"maker": "device", "is_gpu": self._job.place.is_gpu}, self._job.place, self._stop)
        flop_per_s = fast.get("flop_per_s", 1e11)
        self._expected_s = {row.name: row_s(self._job, row, flop_per_s) for row in self._open}
        before = f", and {known} known from before" if known else ""
        say(
            f"{count(len(self._open), 'row')} to measure{before}, each in a process of its own: roughly "
            f"{duration(sum(self._expected_s.values()))}; Ctrl-C keeps what is measured"
        )

    def run(self) -> int:
        """Measure what is not known; return the exit code. Raises ModelError, and StoppedError once told to stop."""
        group, spent_s, planned_s = None, 0.0, 0.0
        try:
            for row in self._rows:
                if row.group != group:
                    group = row.group
                    print(f"\n{table.head(group, self._job)}", flush=True)
                if row.name not in self._known:
                    left_s = sum(self._expected_s[one.name] for one in self._open) - planned_s
                    pace = spent_s / planned_s if planned_s else 1.0
                    say(f"measuring {table.said(row, self._job)}; roughly {duration(pace * left_s)} left")
                    began_s = time.monotonic()
                    self._known[row.name] = self._measured(row)
                    spent_s += time.monotonic() - began_s
                    planned_s += self._expected_s[row.name]
                self._show(row)
        finally:
            self._write()
        states = [figures for _, figures in self._found if "left_out" not in figures]
        failed = sum("failed" in figures for figures in states)
        return EXIT_WHOLE if not failed else EXIT_BROKEN if failed == len(states) else EXIT_WHOLE_WITH_FAILURES

    def _measured(self, row: Row) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="batchgen-bench-", ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch)
            write_prompts(folder, self._job.task)
            answer = ask(self._job.request(row, folder), self._job.place, self._stop)
        if "failed" not in answer:  # which may have been the hour's fault
            kept.save(self._keys[row.name], answer)
        return answer

    def _show(self, row: Row) -> None:
        measured = (figures for other, figures in self._found if other.group == row.group and "seconds" in figures)
        figures = table.figures_of(self._known[row.name], next(measured, None))
        self._found.append((row, figures))
        print(table.line(row, self._job, figures), flush=True)
        self._write()

    def _write(self) -> None:
        replace(self._to, to_json(table.as_json(self._job, self._fingerprint, self._found)).encode() + b"\n", False)

    def tell(self) -> None:
        """Explain the table and say where its figures are."""
        print("\n" + "\n".join(table.notes(self._rows, self._job)), flush=True)
        say(f"written: {self._to}")
