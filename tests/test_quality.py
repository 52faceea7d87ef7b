"""Which decoded images are not fit to be written."""

import pytest

from batchgen.config.bounds import BOUNDS
from batchgen.errors import ConfigError
from batchgen.quality import LONGEST_PX, refuse_large, verdict
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


def test_a_size_that_the_format_cannot_hold_is_refused_with_what_to_set() -> None:
    refuse_large("webp", 16_383, 64)
    for image_format in ("png", "jpg"):
        refuse_large(image_format, 16_384, 16_384)
    with pytest.raises(ConfigError, match=r"16384x64 px \(p.csv:2\): webp holds at most 16383 px .* output.format=png"):
        refuse_large("webp", 16_384, 64, " (p.csv:2)")
    assert BOUNDS["width"].high < LONGEST_PX["jpg"], "libjpeg holds every size that can be asked for"
