"""Which decoded images are not fit to be written."""

import pytest

from batchgen.quality import verdict
from batchgen.types import Decoded

GOOD = bytes(range(48))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (GOOD, None),
        (None, "not finite, when decoded in fp32 too"),
        (GOOD[:-3], "not 4x4 pixels"),
        (bytes(48), "black"),
        (b"\x07\x08\x09" * 16, "blank: every pixel is the same"),
        (b"\x00" * 47 + b"\x01", None),
    ],
)
def test_an_image_is_good_unless_it_is_broken_or_blank(pixels: bytes | None, said: str | None) -> None:
    assert verdict(Decoded(pixels, 4, 4)) == said
