"""A bench as a person reads it, line by line, and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchgen.bench.job import Job
from batchgen.bench.rows import BATCHES, Row
from batchgen.machine.versions import versions
from batchgen.units import GIB

_WHAT, _FIGURE = 36, 10
_COLUMNS = ("images/s", "seconds", "speed-up", "peak GiB", "start s")


def title(job: Job) -> str:
    """What is measured, and where."""
    task, config = job.task, job.config
    made = f"{task.width}x{task.height} px, {task.steps} steps, guidance {task.scale:g}, {config.job.scheduler}"
    found = versions()
    return f"{config.model.path}: {made}; on {job.place.name}, torch {found.get('torch')}"


def head(group: str, job: Job) -> str:
    """The names of the columns of a group. `seconds` are those of an image, or of a batch."""
    what = f"batches of {job.task.rows}" if group == BATCHES else group
    return f"{what:<{_WHAT}}" + "".join(f"{name:>{_FIGURE}}" for name in _COLUMNS)


def line(row: Row, job: Job, figures: Mapping[str, Any]) -> str:
    """One row of the table, from the figures that `figures_of` gives."""
    what = said(row, job)
    for state, name in (("left_out", "left out"), ("failed", "failed")):
        if state in figures:
            return f"{what:<{_WHAT}}  {name}: {figures[state]}"
    shown = (
        f"{figures['images_per_s']:.3f}", f"{figures['seconds']:.2f}", f"x{figures['speed_up']:.2f}",
        f"{figures['peak_bytes'] / GIB:.2f}", f"{figures['start_s']:.1f}",
    )  # fmt: skip
    return f"{what:<{_WHAT}}" + "".join(f"{one:>{_FIGURE}}" for one in shown)


def said(row: Row, job: Job) -> str:
    """What a row is called in the table."""
    return row.what.replace("16 bits", job.family.half)


def figures_of(answer: Mapping[str, Any], first: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of a row from what its process answered; `first` are those of the first row of its group."""
    if "seconds" not in answer:
        return dict(answer)
    rate = answer["images"] / answer["seconds"]
    base = rate if first is None else first["images_per_s"]
    seconds = {
        "images_per_s": round(rate, 4),
        "seconds": round(answer["seconds"], 4),
        "speed_up": round(rate / base, 3),
    }
    return seconds | {name: answer[name] for name in ("peak_bytes", "start_s")}


def as_json(job: Job, fingerprint: str, found: Iterable[tuple[Row, Mapping[str, Any]]]) -> dict[str, Any]:
    """The whole bench, for programs. Memory in bytes, times in s."""
    config, task = job.config, job.task
    about = {
        "width": task.width, "height": task.height, "steps": task.steps, "guidance": task.scale,
        "scheduler": config.job.scheduler, "batch_size": task.rows, "batches": task.batches,
    }  # fmt: skip
    return {
        "job": config.job.name,
        "model": config.model.path,
        "fingerprint": fingerprint,
        "device": job.place.name,
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": about,
        "rows": [{"name": row.name, "group": row.group, "what": said(row, job), **what} for row, what in found],
    }


def notes(rows: Sequence[Row], job: Job) -> list[str]:
    """What explains the columns."""
    of = "of the GPU's, allocated" if job.place.is_gpu else "of the host's, by the largest process"
    lines = ["start: from the start of the process to the end of the first image or batch, which is not counted"]
    lines.append(f"peak: the most memory, {of}; speed-up: over the first row of the group")
    if any(row.maker == "own" for row in rows):
        lines.append("batchgen: from the prompt file to committed shards, by the real command")
    return lines
