"""Which images are not fit to be written: the verdict on a decoded image, and sizes that a format cannot hold."""

from batchgen.errors import ConfigError
from batchgen.types import Decoded

# The longest edge, in pixels: WebP stores it in 14 bits, and libjpeg, which Pillow uses, refuses longer ones.
LONGEST_PX = {"webp": 16_383, "jpg": 65_500}

# Verdicts on what the model computed
NOT_FINITE, BLACK, BLANK = MODELS = "not finite, when decoded in fp32 too", "black", "blank: every pixel is the same"


def verdict(image: Decoded) -> str | None:
    """Why the image fails, or None for a good one."""
    if image.pixels is None:
        return NOT_FINITE
    if len(image.pixels) != image.width * image.height * 3:
        return f"not {image.width}x{image.height} pixels"
    if is_blank(image.pixels):
        return BLACK if not any(image.pixels[:3]) else BLANK
    return None


def is_blank(pixels: bytes) -> bool:
    """Whether every pixel (three bytes) is the same, which no model makes on purpose."""
    return pixels == pixels[:3] * (len(pixels) // 3)


def refuse_large(image_format: str, width: int, height: int, where: str = "") -> None:
    """Raise ConfigError for a size in pixels that the format cannot hold. `where` names the row, if one asks for it."""
    longest_px = LONGEST_PX.get(image_format)
    if longest_px is not None and max(width, height) > longest_px:
        raise ConfigError(
            f"{width}x{height} px{where}: {image_format} holds at most {longest_px} px in each direction; set "
            "output.format=png, or make the images smaller"
        )
