"""The contact sheet: pictures of a run in one image."""

import io
import math
from collections.abc import Sequence

from PIL import Image

from batchgen.report.picks import even

MOST = 400  # pictures
_EDGE_PX = 2560  # of the sheet, at most
_CELL_PX = 320
_GAP_PX = 4
_GREY = (32, 32, 34)


def grid(pictures: int, longest_px: int) -> tuple[int, int, int]:
    """(Columns, rows, edge of a cell in px) of a sheet of at least one picture; `longest_px`: the longest edge of all."""
    columns = math.ceil(math.sqrt(pictures))
    return columns, math.ceil(pictures / columns), min(_CELL_PX, longest_px, (_EDGE_PX - _GAP_PX) // columns - _GAP_PX)


def contact_sheet(thumbs: Sequence[bytes]) -> bytes | None:
    """A PNG of up to `MOST` of the pictures, evenly chosen, in a square grid; None without any.

    Its cells are no larger than the largest of the pictures.
    """
    shown = even(list(thumbs), MOST)
    if not shown:
        return None
    columns, rows, cell_px = grid(len(shown), max(_longest_px(data) for data in shown))
    size = tuple(_GAP_PX + count * (cell_px + _GAP_PX) for count in (columns, rows))
    sheet = Image.new("RGB", (size[0], size[1]), _GREY)
    for place, data in enumerate(shown):
        with Image.open(io.BytesIO(data)) as thumb:
            thumb.thumbnail((cell_px, cell_px))
            row, column = divmod(place, columns)
            left, top = (_GAP_PX + count * (cell_px + _GAP_PX) for count in (column, row))
            sheet.paste(thumb, (left + (cell_px - thumb.width) // 2, top + (cell_px - thumb.height) // 2))
    file = io.BytesIO()
    sheet.save(file, "PNG", compress_level=3)
    return file.getvalue()


def _longest_px(picture: bytes) -> int:
    with Image.open(io.BytesIO(picture)) as opened:  # reads the header alone
        return max(opened.size)
