"""batchgen's own rows: the real command, from a prompt file to committed shards, and what its logs say of it."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from batchgen.bench.task import PROMPT, Task
from batchgen.errors import EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.events import read_events, seconds_of
from batchgen.files import to_json
from batchgen.paths import RunDir
from batchgen.shards.journal import read_journal
from batchgen.types import Columns

_RUN, _PROMPTS = "run", "prompts.jsonl"
# What is set here, whatever the user's job and site say: which prompts, where to, and one worker on this machine.
_HERE = {
    "job.limit": "null", "job.images_per_prompt": "1", "job.encoding": "utf-8", "dry_run": "false", "extend": "false",
    "retry_failed": "false", "output.copy_to": "null", "output.keep_local": "true", "launch": "local",
    "launch.launcher": "local", "launch.workers": "1", "launch.restarts": "0", "launch.stop_at": "null",
    "launch.time_limit": "null", "launch.metrics": "null", "launch.check_disk": "true",
    **{f"job.columns.{one.name}": "null" for one in fields(Columns)},
}  # fmt: skip
_LEFT = ("launch.", "job.columns")


def words_of(typed: Sequence[str], speed: Iterable[tuple[str, Any]], task: Task, folder: Path) -> list[str]:
    """The words of the command that makes the batches of a task, and one before them: what was typed, and what is ours.

    `typed` are Hydra's options and settings, `speed` the settings that a row adds.
    """
    settings = {f"speed.{name}": str(value).lower() for name, value in speed}
    ours = _HERE | settings | {
        "job.prompts": str(folder / _PROMPTS), "run_dir": str(folder / _RUN), "job.batch_size": str(task.rows),
    }  # fmt: skip
    kept = [word for word in typed if (key := _key_of(word)) not in ours and not key.startswith(_LEFT)]
    return [*kept, *(f"{key}={value}" for key, value in ours.items())]


def _key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+~") if "=" in word else ""


def write_prompts(folder: Path, task: Task) -> None:
    """Write the prompt file of that command."""
    images = task.rows * (task.batches + 1)
    lines = (to_json({"prompt": PROMPT.format(place)}) + "\n" for place in range(images))
    (folder / _PROMPTS).write_text("".join(lines))


def run_command(words: Sequence[str], folder: Path, rows: int, speed: Mapping[str, Any]) -> dict[str, Any]:
    """Run the command and return what it took for `rows` images, as an answer of `batchgen.bench.row`."""
    began_s = time.time()
    done = subprocess.run([sys.executable, "-m", "batchgen", *words], capture_output=True, text=True, check=False)
    run = RunDir(folder / _RUN)
    if done.returncode not in (EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES):
        said = [line.removeprefix("batchgen: ") for line in done.stderr.splitlines() if line.strip()]
        return {"failed": said[-1] if said else f"batchgen ended with exit code {done.returncode}"}
    events = [event for path in run.event_logs() for event in read_events(path)]
    units = list(_units(run))
    used = units[-1]["policy"]
    if any(used.get(name, value) != value for name, value in speed.items()):
        return {"left_out": next((event["why"] for event in events if "why" in event), "batchgen did without it here")}
    peaks = [unit["peak_allocated_bytes"] for unit in units if unit["peak_allocated_bytes"] is not None]
    host_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10  # of the largest process: the worker
    return steady(events, rows, began_s) | {"peak_bytes": max(peaks, default=host_bytes)}


def steady(events: Sequence[Mapping[str, Any]], rows: int, began_s: float) -> dict[str, Any]:
    """What `rows` images take between the end of the first unit and the last commit, by a worker's events.

    `began_s`: when the command began, in s since the epoch.
    """
    made = [event for event in events if event["event"] == "made"]
    first_s = seconds_of(made[0]["at"])
    last_s = max(seconds_of(event["at"]) for event in events if event["event"] == "commit")
    images = sum(event["images"] for event in made[1:])
    return {"seconds": rows * (last_s - first_s) / images, "images": rows, "start_s": round(first_s - began_s, 3)}


def _units(run: RunDir) -> Iterator[Mapping[str, Any]]:
    for shard in sorted(run.committed()):
        if (journal := read_journal(run.memory_log(shard))) is not None:
            yield from journal.records
