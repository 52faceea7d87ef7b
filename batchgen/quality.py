"""The verdict on a decoded image. An image that fails is never written as if it were good."""

from batchgen.types import Decoded


def verdict(image: Decoded) -> str | None:
    """Why the image fails, or None for a good one."""
    if image.pixels is None:
        return "not finite, when decoded in fp32 too"
    if len(image.pixels) != image.width * image.height * 3:
        return f"not {image.width}x{image.height} pixels"
    if is_blank(image.pixels):
        return "black" if not any(image.pixels[:3]) else "blank: every pixel is the same"
    return None


def is_blank(pixels: bytes) -> bool:
    """Whether every pixel (three bytes) is the same, which no model makes on purpose."""
    return pixels == pixels[:3] * (len(pixels) // 3)
