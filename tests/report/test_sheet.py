"""The contact sheet: a square grid, never too large."""

import io

import pytest
from PIL import Image

from batchgen.report.sheet import MOST, contact_sheet, grid


def thumb(colour, size=(320, 160)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "WEBP", lossless=True)
    return file.getvalue()


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 2, 2), (5, 3, 2), (50, 8, 7), (1000, 20, 20)])
def test_the_pictures_stand_in_a_grid(count, columns, rows):
    sheet = contact_sheet([thumb((200, 20, 20))] * count)
    assert sheet is not None
    with Image.open(io.BytesIO(sheet)) as image:
        cell_px = (image.width - 4) // columns
        assert image.size == (4 + columns * cell_px, 4 + rows * cell_px)
        assert max(image.size) <= 2560
        pixels = image.load()
        assert pixels is not None
        shown = [
            pixels[4 + column * cell_px + cell_px // 2, 4 + row * cell_px + cell_px // 2]
            for row in range(rows)
            for column in range(columns)
        ]
    assert shown[: min(count, MOST)] == [(200, 20, 20)] * min(count, MOST)
    assert set(shown[count:]) <= {(32, 32, 34)}


@pytest.mark.parametrize("count", [1, 12, 81])
def test_cells_are_no_larger_than_the_largest_picture(count):
    sheet = contact_sheet([thumb((200, 20, 20), (128, 96)), *[thumb((20, 20, 200), (64, 64))] * (count - 1)])
    assert sheet is not None
    with Image.open(io.BytesIO(sheet)) as image:
        columns, rows, cell_px = grid(count, 128)
        assert cell_px == 128 and image.size == (4 + columns * 132, 4 + rows * 132)
        assert image.getpixel((4 + 64, 4 + 64)) == (200, 20, 20)
        red = sum(pixel == (200, 20, 20) for pixel in image.get_flattened_data())
    assert red == 128 * 96


def test_without_pictures_there_is_no_sheet():
    assert contact_sheet([]) is None
