"""What the benchmarks share: the record of one, with where and by what it was measured, and running commands."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from batchgen.bench.place import cpu_name
from batchgen.machine.versions import versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
QUIET_LOAD = 1.5
_MEASURED = ("batchgen", "conf", "jobs")
# A copy whose history is not that of its files, on a machine lent for a measurement, is told its commit.
_TOLD = "BENCH_COMMIT"
device = cpu_name


def commit():
    """That of the code that is measured."""
    return os.environ.get(_TOLD) or _git("rev-parse", "HEAD").stdout.strip()


class Record:
    """A benchmark's rows and bars. The commit is that of when it was begun; `gpu` names the one it ran on."""

    def __init__(self, name, gpu=None):
        self._facts = {
            "name": name,
            "device": gpu or device(),
            "versions": versions(),
            "commit": commit(),
            # Whether what was measured had changes that the commit lacks.
            "changed": _TOLD not in os.environ and bool(_git("status", "--porcelain", "--", *_MEASURED).stdout.strip()),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._command = f"python -m tests.bench.{Path(sys.argv[0]).stem}"  # a record may have a name of its own
        self._rows = []
        self._bars = []

    def add(self, **row):
        """Add a measurement, and show it."""
        self._rows.append(row)
        print(json.dumps(row), flush=True)

    def bar(self, what, value, below=None, at_least=None, arguments=""):
        """Add a value with its goal, one of `below` and `at_least`; without one it is for the record alone."""
        goal, met = None, None
        if below is not None:
            goal, met = f"< {below}", value < below
        elif at_least is not None:
            goal, met = f">= {at_least}", value >= at_least
        self._bars.append(
            {
                "what": what,
                "value": value,
                "goal": goal,
                "met": met,
                "command": f"{self._command} {arguments}".strip(),
            }
        )

    def write(self):
        """Write results/<name>.json and show the bars."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self._facts['name']}.json"
        text = json.dumps(self._facts | {"rows": self._rows, "bars": self._bars}, indent=1)
        path.write_text(text + "\n")
        self.show()
        print(f"written: {path.relative_to(ROOT)}")

    def show(self):
        """Show the bars."""
        for bar in self._bars:
            met = {True: "met", False: "MISSED", None: "no goal"}[bar["met"]]
            print(f"{met:8} {bar['what']}: {bar['value']} (goal {bar['goal'] or 'none'})")


def gpu_name():
    """The GPU's name, or None without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def command(*arguments, code=0, gpu=False):
    """Run `python -m ARGUMENTS` from the repository; return its wall seconds. Exits if it does not end with `code`.

    Without `gpu` it is measured on the CPU, wherever that is.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ if gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode != code:
        sys.exit(f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return round(seconds, 2)


class Asked:
    """A Python process, started by the first question: it reads a line, and answers by lines, the last one empty."""

    def __init__(self, *arguments, **environment):
        self._command = [sys.executable, *map(str, arguments)]
        self._environment = os.environ | environment
        self._process = None

    def ask(self, question):
        """The lines of the answer. Raises EOFError if the process ends before it has answered."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        asked, said = self._process.stdin, self._process.stdout
        assert asked is not None
        assert said is not None
        print(question, file=asked, flush=True)
        found: list[str] = []
        for line in said:
            if line == "\n":
                return found
            found.append(line)
        raise EOFError(f"no answer to {question}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.communicate()


def wait_for_quiet(limit_s=180.0):
    """Wait until others leave the machine alone, `limit_s` at most; return the load of the last minute."""
    end_s = time.monotonic() + limit_s
    while os.getloadavg()[0] > QUIET_LOAD and time.monotonic() < end_s:
        time.sleep(5.0)
    return round(os.getloadavg()[0], 2)


def _git(*arguments):
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
