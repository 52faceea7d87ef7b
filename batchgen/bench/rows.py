"""What a bench measures, as data: the rows of its table, and the speed levers that each get one."""

from dataclasses import dataclass, fields
from typing import Any

from batchgen.bench.place import Place
from batchgen.config.schema import SpeedConfig
from batchgen.models.families.base import Family

ONE_IMAGE, BATCHES = "one image", "batches"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `name` is for --only, `what` for the table.

    `maker`: what measures it: guide, compiled, own. `speed`: the settings of batchgen that it adds. `needs`: what it
    takes: "gpu", "unet", "xformers", "16 bits".
    """

    name: str
    group: str
    what: str
    maker: str
    speed: tuple[tuple[str, Any], ...] = ()
    needs: tuple[str, ...] = ()


# Each way to make batchgen faster by hand: a field of the `speed` settings, its value, and what it needs. A lever that
# is new goes here, and has a row.
LEVERS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("channels_last", True, ("unet",)),
    ("traced", True, ("unet",)),
    ("compile", "blocks", ("gpu",)),
    ("compile", "whole", ("gpu",)),
    ("compile", "graphs", ("gpu",)),
    ("attention", "flash", ()),
    ("attention", "efficient", ("gpu",)),
    ("attention", "cudnn", ("gpu",)),
    ("attention", "xformers", ("gpu", "unet", "xformers")),
)
# What the guide's table has, one saving after the other: each row keeps those before it.
GUIDE = (
    Row("original", ONE_IMAGE, "original, fp32", "guide"),
    Row("fp16", ONE_IMAGE, "16 bits", "guide", needs=("16 bits",)),
    Row("channels_last", ONE_IMAGE, "and channels_last", "guide", needs=("unet",)),
    Row("traced", ONE_IMAGE, "and a traced UNet", "guide", needs=("unet",)),
    Row("memory_efficient", ONE_IMAGE, "and memory-efficient attention", "guide", needs=("gpu", "unet")),
)


def _lever_row(name: str, value: Any, needs: tuple[str, ...]) -> Row:
    said = str(value).lower() if isinstance(value, bool) else str(value)
    short = name if value is True else said
    return Row(f"batchgen_{short}", BATCHES, f"batchgen, speed.{name}={said}", "own", ((name, value),), needs)


ROWS = (
    *GUIDE,
    Row("guide_batch", BATCHES, "the guide's recipe", "guide"),
    Row("compile", BATCHES, "a script with torch.compile", "compiled"),
    Row("batchgen", BATCHES, "batchgen, as given", "own"),
    *(_lever_row(*lever) for lever in LEVERS),
)


def why_left_out(row: Row, place: Place, family: Family, speed: SpeedConfig) -> str | None:
    """Why a row makes no sense on this device, for this model or beside these settings; None where it does."""
    lacks = {
        "gpu": None if place.is_gpu else "it is for a GPU",
        "16 bits": None if place.is_gpu else "CPUs are slow in 16 bits",
        "unet": None if family.convolutional else f"it is for a UNet, and {family.title} has none",
        "xformers": None if place.has_xformers else "xformers is not installed",
    }
    for need in row.needs:
        if (why := lacks[need]) is not None:
            return why
    given = {one.name: getattr(speed, one.name) for one in fields(speed)}
    if row.speed and dict(row.speed).items() <= given.items():
        return "the settings as given have it"
    return None
