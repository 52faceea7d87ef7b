"""What a run will take, as lines of a dry run."""

from batchgen.evening.disk import Room, gib
from batchgen.evening.download import Download
from batchgen.evening.lines import Line
from batchgen.evening.takes import Takes
from batchgen.units import duration

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
    said = f"about {duration(takes.seconds)}: {duration(takes.start_s)} until the first image is begun, then "
    said += f"{images} images at {takes.images_per_s:.2f} images/s"
    return Line("time", f"{said}{f' ({why})' if why else ''}", values)


def cost_lines(takes: Takes | None, gpus: int, price: float | None) -> list[Line]:
    """GPU-hours and what they cost, where a GPU is used; for JSON they are null otherwise."""
    values: dict[str, float | None] = {"gpu_hours": None, "cost": None}
    if takes is None or not gpus:
        return [Line("", "", values)]
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
        return Line("download", f"not known without the network ({download.why})", {"download_bytes": None})
    said = f"{gib(download.bytes)} of the model first" if download.bytes else "nothing; the model is in the cache"
    return Line("download", said, {"download_bytes": download.bytes})
