"""Pixels become image files."""

import io
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from batchgen.types import Decoded

DEFAULT_QUALITY = {"jpg": 95, "webp": 90}
_UNICODE = b"UNICODE\0"
# How long a text may be in UTF-16, by format; no entry where there is no bound. A segment of a JPEG holds 65,533 bytes
# at most, of which the EXIF around the text takes some.
MOST_TEXT_BYTES = {"jpg": 65_000 - len(_UNICODE)}


def encode_image(image: Decoded, image_format: str, quality: int | None, text: str | None = None) -> bytes:
    """The image as a png, jpg or webp file. `quality` is 1-100, None for the format's default; png has none.

    PNG at level 1 with run-length matching: half the time of Pillow's default here, and no larger.

    `text` is put into the file as A1111's web UI does it: into a text chunk `parameters` of a PNG, into the comment of
    the EXIF of the others. It must be within `MOST_TEXT_BYTES`; `infotext` makes it so.
    """
    if image.pixels is None:
        raise ValueError("an image that is not finite cannot be encoded")
    picture = Image.frombytes("RGB", (image.width, image.height), image.pixels)
    data = io.BytesIO()
    if image_format == "png":
        picture.save(data, "PNG", compress_level=1, compress_type=3, pnginfo=_chunk(text))
    elif image_format == "jpg":
        quality = quality or DEFAULT_QUALITY["jpg"]
        picture.save(data, "JPEG", quality=quality, subsampling=0, **_exif(text))
    else:
        picture.save(data, "WEBP", quality=quality or DEFAULT_QUALITY["webp"], **_exif(text))
    return data.getvalue()


def _chunk(text: str | None) -> PngInfo | None:
    if text is None:
        return None
    chunk = PngInfo()
    chunk.add_text("parameters", text)  # tEXt, or iTXt where the text is not Latin-1
    return chunk


def _exif(text: str | None) -> dict[str, Any]:
    """What `Image.save` takes so that the file's EXIF has the text as its comment."""
    if text is None:
        return {}
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.UserComment] = _UNICODE + text.encode("utf-16-be")
    return {"exif": exif}
