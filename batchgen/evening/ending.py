"""What the end of a run writes beside the tars: the report, its contact sheet, samples.parquet and the card.

Their sizes were measured with the bundled model at 128 px, whose pictures took 0.4 to 1.4 times of what is expected
here. Flat pictures take far less: those of the fake engine half of it at 64 px, and a tenth or two at 256 px. Real
models' pictures of 512 px and more were not measured; there the bounds of the page and of the sheet count.
"""

from collections.abc import Mapping

from batchgen.report.picks import SHOWN
from batchgen.report.sheet import MOST, grid
from batchgen.report.thumbs import BUDGET_BYTES, LONGEST_PX

_FIXED_BYTES = 122_000  # of all of them without any image: the page's scripts are 108,000 of it
_ROW_BYTES = 100  # of samples.parquet, for an image
_ITEM_BYTES = 900  # what page and report.json state of an image that is shown
# For a px of a small picture: in the page, and in the contact sheet.
_PAGE_PX_BYTES, _SHEET_PX_BYTES = 0.22, 1.3
_MOST_PAGE_PX_BYTES, _MOST_SHEET_PX_BYTES = 2.0, 3.02  # of noise
_BASE64 = 4 / 3


def ending_bytes(images: Mapping[tuple[int, int], int], most: bool = False) -> int:
    """What the end of a run writes of so many images of each (width, height) in px; `most`: at most, else expected."""
    count = sum(images.values())
    if not count:
        return 0
    page_px_bytes = _MOST_PAGE_PX_BYTES if most else _PAGE_PX_BYTES
    sheet_px_bytes = _MOST_SHEET_PX_BYTES if most else _SHEET_PX_BYTES
    shown, cells = min(count, SHOWN), min(count, MOST)
    columns, rows, cell_px = grid(cells, min(LONGEST_PX, max(map(max, images))))
    thumbs = min(_mean_px(images, LONGEST_PX) * shown * page_px_bytes, BUDGET_BYTES * _BASE64)
    in_cells = columns * rows * cell_px**2 if most else _mean_px(images, min(LONGEST_PX, cell_px)) * cells
    return round(_FIXED_BYTES + count * _ROW_BYTES + shown * _ITEM_BYTES + thumbs + in_cells * sheet_px_bytes)


def _mean_px(images: Mapping[tuple[int, int], int], edge_px: int) -> float:
    """The pixels of an image that is made as small as fits into a square, on average; none is made larger."""
    sizes = {size: min(1.0, edge_px / max(size)) ** 2 * size[0] * size[1] for size in images}
    return sum(sizes[size] * number for size, number in images.items()) / sum(images.values())
