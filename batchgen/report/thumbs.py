"""Small pictures of images in tars: WebP, all together within a bound, whatever the images hold."""

import base64
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from batchgen.report.listing import Listed
from batchgen.report.picks import even

BUDGET_BYTES = 14_000_000 * 3 // 4  # of all pictures, before base64
LONGEST_PX = 320
# The longer edge in px and the quality: the first of them by which all pictures are within the bound.
_SETTINGS = (*((LONGEST_PX, quality) for quality in (80, 65, 50, 35)), (256, 35), (192, 35), (128, 30), (64, 20))
_TRIED = 24  # pictures, to find out which
_MOST_THREADS = 8
_METHOD = 0  # how hard WebP tries, of 6: a tenth more bytes, and half the time, of 2


def thumbnails(images: Sequence[Listed], budget_bytes: int = BUDGET_BYTES) -> list[bytes | None]:
    """A WebP of each image; None where it is not on this disk or cannot be read. Several are made at the same time."""
    have = [one for one in images if one.offset is not None]
    trial = even(have, _TRIED)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "thumbs") as pool:
        for last, (edge_px, quality) in enumerate(_SETTINGS, 1 - len(_SETTINGS)):

            def make(one: Listed, edge_px: int = edge_px, quality: int = quality) -> bytes | None:
                return thumbnail(one, edge_px, quality)

            tried = [len(one or b"") for one in pool.map(make, trial)]
            if last < 0 and sum(tried) * len(have) > budget_bytes * max(1, len(trial)):
                continue
            made = list(pool.map(make, images))
            if not last or sum(len(one or b"") for one in made) <= budget_bytes:
                return _within(made, budget_bytes)
    raise AssertionError("the last setting returns")


def _within(made: list[bytes | None], budget_bytes: int) -> list[bytes | None]:
    left = budget_bytes
    for place, one in enumerate(made):
        left -= len(one or b"")
        made[place] = one if left >= 0 else None
    return made


def thumbnail(one: Listed, edge_px: int, quality: int) -> bytes | None:
    """A WebP of an image, no longer than `edge_px`; None where it is not on this disk or cannot be read."""
    if one.tar is None or one.offset is None or one.size is None:
        return None
    try:
        with one.tar.open("rb") as tar:
            tar.seek(one.offset)
            data = tar.read(one.size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.draft("RGB", (edge_px, edge_px))
                image.thumbnail((edge_px, edge_px), Image.Resampling.BILINEAR, reducing_gap=2.0)
                file = io.BytesIO()
                image.convert("RGB").save(file, "WEBP", quality=quality, method=_METHOD)
    except Exception:  # whatever a damaged image makes its reader raise, there is no picture of it
        return None
    return file.getvalue()


def data_url(thumb: bytes | None) -> str | None:
    """A picture as a page holds it."""
    return None if thumb is None else f"data:image/webp;base64,{base64.b64encode(thumb).decode()}"
