"""What a run will take, as lines of a dry run."""

from collections.abc import Sequence

from batchgen.config.schema import Config, OutputConfig
from batchgen.evening.disk import Room, free_bytes, room, too_small
from batchgen.evening.download import Download, to_download
from batchgen.evening.lines import Line
from batchgen.evening.outlook import Model, Outlook, images_of
from batchgen.evening.takes import NOTHING, Takes
from batchgen.evening.work import Job
from batchgen.machine.gpus import Gpu
from batchgen.models.find import is_plain_hub
from batchgen.paths import RunDir
from batchgen.stores.target import target
from batchgen.units import duration, gib

_UNKNOWN = (
    "not known, since nothing was measured here: dry_run=probe loads the model and measures, and so does a first run"
)


def time_line(takes: Takes | None, images: int, why: str = "") -> Line:
    """How long the command takes. `takes` is None where nothing was measured; `why` is added in brackets."""
    if takes is None:
        values = dict.fromkeys(("time_s", "start_s", "work_s", "images_per_s"))
        return Line("time", f"{_UNKNOWN}{f' ({why})' if why else ''}", values)
    values = {
        "time_s": round(takes.seconds, 1),
        "start_s": round(takes.start_s, 1),
        "work_s": round(takes.work_s, 1),
        "images_per_s": round(takes.images_per_s, 3),
    }
    if not images:
        return Line("time", "nothing is left to make", values)
    said = f"about {duration(takes.seconds)}: {duration(takes.start_s)} until the first image is begun, then "
    said += f"{images} images at {takes.images_per_s:.2f} images/s"
    return Line("time", f"{said}{f' ({why})' if why else ''}", values)


def cost_lines(takes: Takes | None, gpus: int, price: float | None) -> list[Line]:
    """GPU-hours and what they cost, where a GPU is used; for JSON they are null otherwise.

    With a price there is always a line on the cost: it says why there is none.
    """
    values: dict[str, float | None] = {"gpu_hours": None, "cost": None}
    if takes is None or not gpus:
        why = "nothing is left to make" if takes == NOTHING else "the time is not known" if gpus else "no GPU is used"
        return [Line("", "", values) if price is None else Line("cost", f"none: {why}", values)]
    hours = gpus * takes.seconds / 3600
    lines = [Line("gpu-hours", f"{hours:.2f} on {gpus} GPU{'s' if gpus > 1 else ''}", values | {"gpu_hours": hours})]
    if price is not None:
        lines.append(Line("cost", f"{hours * price:.2f}, at {price:g} for a GPU-hour", {"cost": hours * price}))
    return lines


def disk_line(room: Room, run_dir: object) -> Line:
    """How much is written, and what is free."""
    how = "about" if room.measured else "at most"
    why = "measured" if room.measured else "no image of this size and format was measured yet"
    values = {"disk_bytes": room.bytes, "disk_measured": room.measured, "disk_free_bytes": room.free_bytes}
    said = f"{how} {gib(room.bytes)} to write ({why}), {gib(room.free_bytes)} free at {run_dir}"
    return Line("disk", said, values)


def download_line(download: Download | None) -> Line:
    """What is downloaded first; None for a model that is here, which needs no line."""
    if download is None:
        return Line("", "", {"download_bytes": 0})
    if download.bytes is None:
        return Line("download", f"not known: {download.why}", {"download_bytes": None})
    return Line("download", f"{gib(download.bytes)} of the model first", {"download_bytes": download.bytes})


def copies_line(output: OutputConfig) -> Line:
    """Where shards are copied to; the store is not asked. Raises ConfigError for an address that is not valid."""
    if output.copy_to is None:
        return Line("", "", {"copy_to": None, "keep_local": True})
    there = target(output.copy_to).url("shards/")
    leave = "" if output.keep_local else ", and its tar then leaves this disk"
    said = f"each finished shard is copied to {there}{leave}; the run tries at its start whether it may write there"
    return Line("copies", said, {"copy_to": output.copy_to, "keep_local": output.keep_local})


def told_of(
    config: Config, run: RunDir, model: Model | None, gpus: Sequence[Gpu], shards: Sequence[Sequence[Job]]
) -> tuple[list[Line], list[str], str | None]:
    """How long these shards take, what they cost, and the room on the disk; warnings; and why the run would be refused.

    `model` is None for a hub model that is not here. Raises OSError.
    """
    images = images_of(job for jobs in shards for job in jobs)
    takes, why = None, ""
    if model is None:
        need = room(images, config.output, {}, free_bytes(run.root))
        why = "the model is not here yet"
    else:
        outlook = Outlook(config, model, gpus)
        takes, need = outlook.takes(shards), outlook.room(images, run.root)
    busy = min(config.launch.workers or 1, len(shards), len(gpus))
    lines = [time_line(takes, images.total(), why), *cost_lines(takes, busy, config.price_per_gpu_hour)]
    lines += [
        disk_line(need, run.root),
        copies_line(config.output),
        download_line(to_download(config.model) if model is None and is_plain_hub(config.model) else None),
    ]
    small = too_small(need, run) if need.lacks else need.warning
    if need.lacks and config.launch.check_disk:
        return [*lines, Line("", "", {"warnings": [small]})], [], small
    return lines, [small] if small else [], None
