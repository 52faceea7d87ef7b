"""The settings' looks: each a row of colours and numbers that one formula paints, many pictures at once."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.train_tiny.vocabulary import SETTINGS

Colour = tuple[int, int, int]
_KINDS = ("smooth", "jagged", "blocks")
_PATTERNS = ("none", "columns", "tiles", "windows", "books", "furrows", "waves")


@dataclass(frozen=True)
class Look:
    """Sky from `top` to `low`, a `far` layer in front of it and ground from `middle` to `near`. Parts are of 1."""

    top: Colour
    low: Colour
    far: Colour
    middle: Colour
    near: Colour
    far_height: float  # of the picture's edge, above the horizon
    far_kind: str = "smooth"
    far_pattern: str = "none"
    ground_pattern: str = "none"
    ground_noise: float = 0.06
    sky_noise: float = 0.03
    sky_dots: float = 0.0
    ground_dots: float = 0.0
    horizon: float = 0.0  # added to the scene's


LOOKS = {
    "mars": Look((200, 140, 100), (235, 190, 145), (165, 75, 45), (190, 80, 45), (150, 50, 25), 0.16,
                 ground_noise=0.16, ground_dots=0.5),
    "moon": Look((5, 5, 12), (20, 20, 30), (120, 120, 125), (165, 165, 168), (120, 120, 124), 0.07,
                 ground_noise=0.14, sky_dots=0.5, ground_dots=0.6),
    "desert": Look((110, 180, 235), (205, 230, 240), (225, 180, 100), (240, 205, 125), (220, 170, 85), 0.14,
                   ground_noise=0.06),
    "beach": Look((90, 170, 240), (190, 225, 250), (20, 115, 190), (245, 225, 175), (230, 205, 145), 0.2, "blocks",
                  sky_noise=0.1, ground_noise=0.03),
    "ocean": Look((130, 190, 240), (215, 235, 250), (20, 80, 160), (25, 95, 175), (10, 50, 120), 0.0,
                  ground_pattern="waves", sky_noise=0.1, ground_noise=0.08),
    "underwater": Look((60, 190, 210), (15, 110, 160), (10, 70, 110), (15, 80, 120), (5, 40, 80), 0.12,
                       far_kind="jagged", sky_noise=0.12, sky_dots=0.3, horizon=0.25),
    "snow": Look((170, 190, 210), (220, 228, 236), (200, 212, 228), (245, 248, 252), (225, 232, 245), 0.12,
                 ground_noise=0.03, sky_dots=0.8),
    "forest": Look((50, 100, 60), (70, 120, 70), (25, 62, 32), (60, 85, 35), (38, 58, 25), 1.0, "smooth", "columns",
                   ground_noise=0.1),
    "meadow": Look((80, 165, 240), (200, 230, 250), (70, 150, 70), (120, 195, 75), (75, 155, 50), 0.08,
                   sky_noise=0.14, ground_noise=0.06, ground_dots=0.9),
    "city": Look((140, 175, 210), (215, 225, 230), (85, 95, 115), (120, 120, 122), (80, 80, 84), 0.42, "blocks",
                 "windows", ground_noise=0.02),
    "mountains": Look((95, 150, 220), (200, 220, 240), (110, 115, 135), (95, 135, 80), (65, 105, 55), 0.4, "jagged",
                      ground_noise=0.06),
    "space": Look((10, 5, 30), (35, 12, 60), (0, 0, 0), (10, 5, 30), (10, 5, 30), 0.0, sky_noise=0.28, sky_dots=0.9,
                  horizon=2.0),
    "cave": Look((38, 28, 24), (62, 46, 38), (80, 62, 50), (95, 74, 58), (52, 40, 32), 0.3, "jagged",
                 ground_noise=0.16, sky_noise=0.1),
    "volcano": Look((70, 10, 10), (200, 60, 20), (45, 30, 32), (48, 34, 34), (28, 20, 22), 0.3, "jagged",
                    ground_noise=0.1, ground_dots=1.0, sky_noise=0.12),
    "kitchen": Look((225, 240, 240), (225, 240, 240), (170, 215, 222), (205, 160, 110), (175, 125, 78), 1.0, "smooth",
                    "tiles", ground_noise=0.02, horizon=0.08),
    "library": Look((90, 60, 35), (90, 60, 35), (120, 78, 45), (110, 65, 38), (82, 46, 26), 1.0, "smooth", "books",
                    ground_noise=0.02, horizon=0.1),
    "stage": Look((120, 10, 20), (120, 10, 20), (165, 18, 30), (160, 110, 62), (110, 72, 38), 1.0, "smooth", "columns",
                  "furrows", ground_noise=0.02, horizon=0.1),
    "ice": Look((150, 150, 215), (225, 215, 240), (170, 205, 230), (175, 225, 240), (120, 190, 220), 0.12, "jagged",
                ground_noise=0.12),
    "farm": Look((120, 185, 235), (225, 235, 235), (95, 125, 60), (235, 195, 80), (205, 155, 45), 0.07,
                 ground_pattern="furrows", ground_noise=0.03, sky_noise=0.06),
    "clouds": Look((55, 135, 230), (120, 185, 245), (235, 242, 250), (240, 245, 252), (205, 220, 240), 0.16,
                   ground_noise=0.14, sky_noise=0.3, horizon=0.15),
}  # fmt: skip
assert tuple(LOOKS) == tuple(SETTINGS)

# What the hour does: how light it is (red, green, blue), and how much of its own colour the sky takes.
_LIGHT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.97, 0.85], [1.0, 0.76, 0.62], [0.36, 0.4, 0.62]])
_SKY = torch.tensor([[0, 0, 0], [255, 225, 170], [250, 130, 60], [12, 14, 48]]) / 255
_SKY_SHARE = torch.tensor([0.0, 0.55, 0.8, 0.85])
_NIGHT = 3


class Settings:
    """The table of looks on a device."""

    def __init__(self, device: torch.device) -> None:
        rows = list(LOOKS.values())
        self._columns: dict[str, Tensor] = {}
        for field in fields(Look):
            values = [getattr(row, field.name) for row in rows]
            if field.name in ("far_kind",):
                column = torch.tensor([_KINDS.index(value) for value in values])
            elif field.name.endswith("pattern"):
                column = torch.tensor([_PATTERNS.index(value) for value in values])
            else:
                column = torch.tensor(values, dtype=torch.float32)
                column = column / 255 if column.dim() == 2 else column
            self._columns[field.name] = column.to(device)
        self._light, self._sky = _LIGHT.to(device), _SKY.to(device)
        self._sky_share = _SKY_SHARE.to(device)

    def light(self, times: Tensor) -> Tensor:
        """(rows,) hours -> (rows, 3, 1, 1), what to multiply colours by."""
        return self._light[times][:, :, None, None]

    def paint(self, settings: Tensor, times: Tensor, horizons: Tensor, size_px: int) -> Tensor:
        """(rows,) settings, hours and horizons -> (rows, 3, size_px, size_px) in 0..1, at random but for these."""
        rows, device = len(settings), settings.device
        look = {name: column[settings] for name, column in self._columns.items()}
        jitter = 1 + 0.24 * (torch.rand(rows, 3, 1, 1, device=device) - 0.5)
        colour = {name: look[name][:, :, None, None] * jitter for name in ("top", "low", "far", "middle", "near")}
        part = {name: look[name][:, None, None, None] for name in _PARTS}
        edge = (torch.arange(size_px, device=device) + 0.5) / size_px
        y, x = edge.view(1, 1, -1, 1), edge.view(1, 1, 1, -1)
        horizon = (horizons + look["horizon"])[:, None, None, None]
        soft, fine = _noise(rows, size_px, (3, 6, 12), device), _noise(rows, size_px, (8, 16, 32), device)

        share = self._sky_share[times][:, None, None, None]
        glow = self._sky[times][:, :, None, None] * (1 - 0.25 * (1 - y / horizon.clamp(max=1)).clamp(0, 1))
        sky = torch.lerp(colour["top"], colour["low"], (y / horizon.clamp(max=1)).clamp(0, 1))
        sky = torch.lerp(sky, glow.expand_as(sky), share) + soft * part["sky_noise"] * (1 - 0.6 * share)
        stars = (times == _NIGHT)[:, None, None, None] * 0.6
        sky = sky + _dots(rows, size_px, device) * torch.maximum(part["sky_dots"], stars) * 0.8

        light = self.light(times)
        ridge = horizon - part["far_height"] * _ridge(look["far_kind"], size_px)
        far = (colour["far"] + 0.05 * fine) * light
        far = far * _pattern(look["far_pattern"], x, y, horizon, rows)
        depth = ((y - horizon) / (1 - horizon).clamp(min=0.1)).clamp(0, 1)
        ground = torch.lerp(colour["middle"], colour["near"], depth) + fine * part["ground_noise"]
        ground = ground * _pattern(look["ground_pattern"], x, y, horizon, rows)
        tint = torch.rand(rows, 3, 1, 1, device=device) * 0.9 - 0.35
        ground = ground + _dots(rows, size_px, device) * part["ground_dots"] * 0.5 * tint
        lava = (settings == _VOLCANO)[:, None, None, None] * (fine.abs() < 0.09) * (y > horizon)
        ground = torch.where(lava.bool(), ground.new_tensor((1.0, 0.45, 0.05)).view(1, 3, 1, 1), ground * light)
        picture = torch.where(y < ridge, sky, far)
        return torch.where(y < horizon, picture, ground).clamp(0, 1)


_PARTS = ("far_height", "ground_noise", "sky_noise", "sky_dots", "ground_dots")
_VOLCANO = tuple(SETTINGS).index("volcano")


def _noise(rows: int, size_px: int, cells: tuple[int, ...], device: torch.device) -> Tensor:
    # (rows, 1, size, size): smooth random hills of several sizes, about -1..1
    total = torch.zeros(rows, 1, size_px, size_px, device=device)
    for octave, cell in enumerate(cells):
        grid = torch.rand(rows, 1, cell, cell, device=device) * 2 - 1
        smooth = F.interpolate(grid, (size_px, size_px), mode="bicubic", align_corners=False)
        total += smooth * 0.6**octave
    return total * 0.7


def _dots(rows: int, size_px: int, device: torch.device) -> Tensor:
    # (rows, 1, size, size): a few bright dots, 0..1
    grid = (torch.rand(rows, 1, 42, 42, device=device) > 0.965).float()
    return F.interpolate(grid, (size_px, size_px), mode="bilinear", align_corners=False)


def _ridge(kinds: Tensor, size_px: int) -> Tensor:
    # (rows, 1, 1, size): the far layer's height, 0..1 of its own
    rows, device = len(kinds), kinds.device
    smooth = F.interpolate(torch.rand(rows, 1, 6, device=device), size_px, mode="linear", align_corners=True)
    jagged = F.interpolate(torch.rand(rows, 1, 12, device=device), size_px, mode="linear", align_corners=True)
    blocks = F.interpolate(torch.rand(rows, 1, 11, device=device), size_px, mode="nearest")
    every = torch.stack((0.4 + 0.6 * smooth, 0.15 + 0.85 * jagged, 0.35 + 0.65 * blocks))
    return every[kinds, torch.arange(rows, device=device)][:, :, None, :]


def _pattern(kinds: Tensor, x: Tensor, y: Tensor, horizon: Tensor, rows: int) -> Tensor:
    # (rows, 3, size, size): what to multiply colours by, about 1
    device = x.device
    shift, scale = torch.rand(2, rows, 1, 1, 1, device=device)
    count = 7 + 5 * scale
    across = (x - 0.5) / (y - horizon + 0.12).clamp(min=0.05)  # lines that meet on the horizon
    columns = 1 + 0.32 * torch.sin(6.28 * (count * x + shift))
    tiles = 1 + 0.22 * torch.maximum((count * x + shift) % 1 > 0.88, (count * y + shift) % 1 > 0.88)
    lit = ((2.2 * count * x + shift) % 1 > 0.5) & ((2.2 * count * y + shift) % 1 > 0.5)
    windows = 1 + 0.7 * lit
    shelf = 1 - 0.75 * ((4 * y + shift) % 1 > 0.87)
    books = shelf * _book_colours(rows, x.shape[-1], y.shape[-2], shift, device)
    furrows = 1 + 0.16 * torch.sin(6.28 * (1.6 * across + shift)) * (y > horizon)
    waves = 1 + 0.25 * torch.sin(6.28 * (26 * (y - horizon).clamp(min=0) ** 0.7 + 0.8 * torch.sin(9 * x + 6 * shift)))
    shape = (rows, 3, y.shape[-2], x.shape[-1])
    every = [torch.ones_like(columns), columns, tiles, windows, books, furrows, waves]
    return torch.stack([one.expand(shape) for one in every])[kinds, torch.arange(rows, device=device)]


def _book_colours(rows: int, width: int, height: int, shift: Tensor, device: torch.device) -> Tensor:
    colours = torch.rand(rows, 3, 4, 22, device=device) * 1.3 + 0.3
    return F.interpolate(colours, (height, width), mode="nearest")
