"""Pictures of scenes: emoji over settings, drawn in batches on any device."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jobs.train_tiny.arrange import Shapes
from jobs.train_tiny.scenes import Scene
from jobs.train_tiny.settings import Settings
from jobs.train_tiny.subjects import SUBJECTS
from jobs.train_tiny.vocabulary import COLOURS

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIZE_PX = 128
_FONT_PX = 109  # the only size that this bitmap font has
_SPRITE_PX = 96
_MOST_FIGURES = 4
_SPRITE_LIGHT = 0.55  # how much of the hour's light falls on the figures


def glyph(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The emoji, cut to its edges. Raises ValueError if the font has no such glyph, or text layout is missing."""
    if font.getlength(emoji) > 1.5 * _FONT_PX:
        raise ValueError(f"{emoji} is not one glyph here: Pillow needs libraqm and libfribidi (libfribidi0)")
    picture = Image.new("RGBA", (_FONT_PX * 2, _FONT_PX * 2))
    ImageDraw.Draw(picture).text((20, 20), emoji, font=font, embedded_color=True)
    box = picture.getchannel("A").point(lambda value: 255 * (value > 24)).getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {emoji}: install Debian's fonts-noto-color-emoji")
    return picture.crop(box)


def recoloured(picture: Image.Image, hue: int) -> Image.Image:
    """The picture with its coloured parts in this hue (0..255); greys, skin-pale and dark parts stay."""
    hues, saturation, value = (np.array(one) for one in picture.convert("RGB").convert("HSV").split())
    hues[saturation > 90] = hue
    changed = Image.merge("HSV", [Image.fromarray(one) for one in (hues, saturation, value)]).convert("RGB")
    changed.putalpha(picture.getchannel("A"))
    return changed


class Sprites:
    """Every emoji, plain and in its colours; `textures`: (sprites, 4, edge, edge) in 0..1, alpha multiplied in."""

    def __init__(self, plain: Sequence[Image.Image]) -> None:
        """`plain`: each subject's picture, cut to its edges."""
        self._numbers: dict[tuple[int, str | None], int] = {}
        textures: list[Tensor] = []
        for number, (subject, picture) in enumerate(zip(SUBJECTS, plain, strict=True)):
            for colour in (None, *(COLOURS if subject.coloured else ())):
                self._numbers[number, colour] = len(textures)
                textures.append(_texture(picture if colour is None else recoloured(picture, COLOURS[colour])))
        self.shapes: Shapes = tuple((one.width / max(one.size), one.height / max(one.size)) for one in plain)
        self.textures = torch.stack(textures)

    @classmethod
    def of_font(cls, font: Path = FONT) -> "Sprites":
        """Drawn with the font. Raises OSError if there is no such file, and as `glyph`."""
        face = ImageFont.truetype(str(font), _FONT_PX)
        return cls([glyph(subject.emoji, face) for subject in SUBJECTS])

    def number(self, subject: int, colour: str | None) -> int:
        """The row of `textures` that shows the subject in this colour."""
        return self._numbers[subject, colour]


def _texture(picture: Image.Image) -> Tensor:
    # Centred on a square whose edge is the picture's longer one: (4, edge, edge), with a clear margin of a pixel
    square = Image.new("RGBA", (max(picture.size),) * 2)
    square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
    inner = square.resize((_SPRITE_PX - 2,) * 2, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(inner)).permute(2, 0, 1).float() / 255
    return F.pad(torch.cat((pixels[:3] * pixels[3:], pixels[3:])), (1, 1, 1, 1))


def pack(scenes: list[Scene], sprites: Sprites) -> dict[str, Tensor]:
    """The scenes as tensors: places (rows,), and figures (rows, most figures, 5) whose sprite is -1 where none is."""
    figures = torch.zeros(len(scenes), _MOST_FIGURES, 5)
    figures[:, :, 0] = -1
    for row, scene in enumerate(scenes):
        for place, one in enumerate(scene.figures):
            sprite = sprites.number(one.subject, one.colour)
            values = (sprite, one.x, one.y, one.size, one.turn)
            figures[row, place] = torch.tensor(values)
    return {
        "settings": torch.tensor([scene.setting for scene in scenes]),
        "times": torch.tensor([scene.time for scene in scenes]),
        "horizons": torch.tensor([scene.horizon for scene in scenes]),
        "figures": figures,
    }


class Painter:
    """Draws packed scenes on one device."""

    def __init__(self, sprites: Sprites, device: torch.device) -> None:
        self._textures, self._settings, self._device = sprites.textures.to(device), Settings(device), device

    @torch.no_grad()
    def draw(self, packed: dict[str, Tensor], size_px: int = SIZE_PX) -> tuple[Tensor, Tensor]:
        """Pictures (rows, 3, size_px, size_px) in -1..1, and where figures are (rows, 1, size_px, size_px) in 0..1.

        The settings' textures are random: two calls differ unless torch is seeded.
        """
        packed = {name: value.to(self._device, non_blocking=True) for name, value in packed.items()}
        picture = self._settings.paint(packed["settings"], packed["times"], packed["horizons"], size_px)
        covered = torch.zeros_like(picture[:, :1])
        full_light = self._settings.light(packed["times"])
        light = torch.lerp(torch.ones_like(full_light), full_light, _SPRITE_LIGHT)
        for place in range(_MOST_FIGURES):
            layer = _layer(packed["figures"][:, place], self._textures, size_px)
            colour, alpha = layer[:, :3] * light, layer[:, 3:]
            picture = picture * (1 - alpha) + colour
            covered = torch.maximum(covered, alpha)
        return picture.clamp(0, 1) * 2 - 1, covered


def _layer(figures: Tensor, textures: Tensor, size_px: int) -> Tensor:
    # One figure a row, (rows, 5) -> (rows, 4, size, size), clear where there is none; drawn at twice the size, for
    # smooth edges. No step waits for the device.
    sprite, x, y, size, turn = figures.unbind(1)
    there = (sprite >= 0).float()
    size = torch.where(there > 0, size, 1.0)
    cos, sin = torch.cos(turn) / size, torch.sin(turn) / size
    to_x, to_y = 1 - 2 * x, 1 - 2 * y
    across = torch.stack((cos, sin, cos * to_x + sin * to_y), 1)
    down = torch.stack((-sin, cos, -sin * to_x + cos * to_y), 1)
    grid = F.affine_grid(
        torch.stack((across, down), 1), [len(figures), 4, 2 * size_px, 2 * size_px], align_corners=False
    )
    chosen = textures[sprite.long().clamp(min=0)]
    drawn = F.grid_sample(chosen, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(drawn, 2) * there[:, None, None, None]


def sheet(pictures: Tensor, across: int) -> Image.Image:
    """Pictures (rows, 3, height, width) in -1..1 on one sheet, this many a line."""
    rows, _, height, width = pictures.shape
    pixels = ((pictures.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    picture = Image.new("RGB", (across * width, math.ceil(rows / across) * height))
    for number, one in enumerate(pixels):
        picture.paste(Image.fromarray(one), (number % across * width, number // across * height))
    return picture
