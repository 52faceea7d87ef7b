"""Pixels to image files: png keeps them, the other formats come close."""

import io

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from batchgen.shards.images import MOST_TEXT_BYTES, encode_image
from batchgen.types import Decoded
from tests.builders import fake_image, make_prompt

PROMPT = make_prompt("fox")


def test_a_png_decodes_back_to_the_same_pixels() -> None:
    image = fake_image(PROMPT)
    with Image.open(io.BytesIO(encode_image(image, "png", None))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (image.width, image.height))
        assert picture.tobytes() == image.pixels


@pytest.mark.parametrize(("image_format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_come_close_and_closer_with_more_quality(image_format: str, kind: str) -> None:
    pixels = bytes([90, 120, 150]) * (64 * 32) + bytes([91, 121, 151]) * (64 * 32)
    data = encode_image(Decoded(pixels, 64, 64), image_format, None)
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == (kind, (64, 64))
        assert max(abs(a - b) for a, b in zip(picture.tobytes(), pixels, strict=True)) <= 3
    sizes = [len(encode_image(fake_image(PROMPT), image_format, quality)) for quality in (20, 90)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_text_is_kept_beside_the_same_pixels(image_format: str) -> None:
    image = fake_image(PROMPT)
    plain, told = (encode_image(image, image_format, None, text) for text in (None, "a fox"))
    assert told == encode_image(image, image_format, None, "a fox") and len(told) > len(plain)
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(told)) as other:
        assert one.tobytes() == other.tobytes()
        assert "parameters" not in one.info and len(one.getexif()) == 0


def test_the_longest_text_fits_into_each_format() -> None:
    text = "x" * (MOST_TEXT_BYTES["jpg"] // 2)
    with Image.open(io.BytesIO(encode_image(fake_image(PROMPT), "jpg", None, text))) as image:
        assert image.getexif().get_ifd(IFD.Exif)[Base.UserComment] == b"UNICODE\0" + text.encode("utf-16-be")
    for image_format in ("png", "webp"):
        assert image_format not in MOST_TEXT_BYTES
        assert len(encode_image(fake_image(PROMPT), image_format, None, text * 9)) > 9 * len(text)


def test_pixels_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        encode_image(Decoded(None, 64, 64), "png", None)
