"""The verdict on an image, from what the decoder showed. What fails is never written as if it were good."""

from batchgen.types import Decoded


def verdict(image: Decoded) -> str | None:
    """Why the image fails, or None for a good one."""
    if image.pixels is None:
        return "not finite, when decoded in fp32 too"
    if len(image.pixels) != image.width * image.height * 3:
        return f"not {image.width}x{image.height} pixels"
    return None
