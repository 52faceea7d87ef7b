"""How much room a run needs on the disk, and whether it is there."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchgen.config.schema import OutputConfig
from batchgen.evening.ending import ending_bytes
from batchgen.evening.measured import bytes_name
from batchgen.paths import RunDir
from batchgen.plan.replan import is_untouched
from batchgen.units import gib

# A sample's text, JSON and their places in a tar take at least this: three members, each a head and a block.
_LEAST_BYTES = 6 * 512
# For an image, what the plan, the manifest and the logs take beside the tar (measured); `ending` has what comes last.
_BESIDE_BYTES = 1200
# A text, a JSON and heads, generously.
_TEXT_BYTES = 8 << 10
_FIXED_BYTES = 10 << 10  # of a run: its configuration, policies and logs
# By measured bytes an image, the sum is within this share.
_ERROR_SHARE = 0.1
# With less than this share of the free room to spare, a run is warned.
_NEAR_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Room:
    """What a run still writes and what is free, in bytes.

    `least_bytes` is certain; `bytes` is expected if `measured`, else the most that it can be. `leaves`: tars leave this
    disk as they are copied, so that nothing is certain.
    """

    bytes: int
    least_bytes: int
    measured: bool
    free_bytes: int
    leaves: bool = False

    @property
    def lacks(self) -> bool:
        """Whether it certainly does not fit."""
        return self.least_bytes > self.free_bytes and not self.leaves

    @property
    def warning(self) -> str | None:
        """What to say if it fits badly or perhaps not; None if it fits."""
        if self.lacks or self.bytes <= _NEAR_SHARE * self.free_bytes:
            return None
        if self.leaves:
            return (
                f"up to {gib(self.bytes)} are written and {gib(self.free_bytes)} are free: the copies must keep up, "
                "since tars leave this disk once they are copied"
            )
        if not self.measured:
            return (
                f"the disk may be too small: up to {gib(self.bytes)} are written, {gib(self.free_bytes)} are free; "
                "dry_run=probe measures how large the images are"
            )
        return f"the disk is nearly too small: about {gib(self.bytes)} are written, {gib(self.free_bytes)} are free"


def room(
    images: Mapping[tuple[int, int], int],
    output: OutputConfig,
    known: Mapping[str, tuple[float, int]],
    free_bytes: int,
) -> Room:
    """What images take, counted by (width, height) in px; `known` is `Paces.image_bytes`."""
    each = {
        size: known.get(bytes_name(*size, output.format, output.quality)) or _like(size, output, known)
        for size in images
    }
    count = sum(images.values())
    measured = all(each.values())
    beside = count * _BESIDE_BYTES + (_FIXED_BYTES if count else 0) + ending_bytes(images, most=not measured)
    if measured:
        tars = sum(images[size] * found[0] for size, found in each.items() if found)
        return Room(int(tars + beside), int((1 - _ERROR_SHARE) * tars), True, free_bytes, not output.keep_local)
    most = sum(number * most_bytes(*size, output.format) for size, number in images.items())
    return Room(most + beside, count * _LEAST_BYTES, False, free_bytes, not output.keep_local)


def _like(
    size: tuple[int, int], output: OutputConfig, known: Mapping[str, tuple[float, int]]
) -> tuple[float, int] | None:
    """From another size of the same format, in proportion to its pixels, if it has a quarter to four times as many."""
    pixels = size[0] * size[1]
    suffix = bytes_name(0, 0, output.format, output.quality).removeprefix("0x0")
    for name, (each, images) in known.items():
        edges, _, kind = name.partition(" ")
        width, _, height = edges.partition("x")
        ratio = pixels / (int(width) * int(height))
        if f" {kind}" == suffix and 0.25 <= ratio <= 4:
            return (each - _LEAST_BYTES) * ratio + _LEAST_BYTES, images
    return None


def most_bytes(width: int, height: int, image_format: str) -> int:
    """The most that an image with its texts takes: noise in png takes 3 bytes a pixel, in jpg of quality 100 over 4."""
    pixel_bytes = 3.01 if image_format == "png" else 4.5
    return int(pixel_bytes * width * height) + _TEXT_BYTES


def free_bytes(run_dir: Path) -> int:
    """What is free where the run's directory is or will be. Raises OSError."""
    place = run_dir.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def too_small(room: Room, run: RunDir) -> str:
    """What to say of a run that certainly does not fit on the disk, and how to go on.

    Of a run that has begun neither the place nor the format can be set otherwise.
    """
    about = "about" if room.measured else "at least"
    need = room.bytes if room.measured else room.least_bytes
    elsewhere = ", or set run_dir to another disk, output.format=webp or jpg, or a job.limit"
    has_begun = bool(run.plans()) and not is_untouched(run)
    return (
        f"the disk of {run.root} is too small: the run writes {about} {gib(need)}, and {gib(room.free_bytes)} are "
        f"free; make room{'' if has_begun else elsewhere} (launch.check_disk=false starts all the same)"
    )
