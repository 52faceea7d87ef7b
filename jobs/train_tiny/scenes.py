"""Scenes: which emoji stand where in which setting, and the sentence that says so."""

import random
import zlib
from dataclasses import dataclass

from jobs.train_tiny.captions import Words
from jobs.train_tiny.subjects import SUBJECTS
from jobs.train_tiny.vocabulary import (
    COLOURS,
    FLOATING,
    OUTDOORS,
    RELATION_PHRASES,
    RELATIONS,
    REVERSED_PHRASES,
    SETTINGS,
    TIMES,
)

_BY_ROLE = {role: [number for number, subject in enumerate(SUBJECTS) if role in subject.roles] for role in "rmos"}
_OF_TEN_HELD_OUT = 1
_NAMES = tuple(SETTINGS)
_RELATION_SHARES = (0.32, 0.17, 0.17, 0.17, 0.17)  # riding hides most, and is the hardest
_EDGE = 0.02


@dataclass(frozen=True)
class Figure:
    """One emoji in a scene. Places and sizes are fractions of the canvas's edge, y grows downwards.

    `x`, `y`: its centre; `size`: its longer edge; `turn`: in radians; `colour`: a name, or None for its own.
    """

    subject: int
    x: float
    y: float
    size: float
    turn: float = 0.0
    flipped: bool = False
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `figures` from the back to the front; `second` and `relation` are None for one subject.

    Of a pair, `first` is the one that rides, is on, under or behind; beside: the left one. `count` is of `first`.
    """

    caption: str
    setting: int
    time: int
    horizon: float
    figures: tuple[Figure, ...]
    first: int
    count: int = 1
    second: int | None = None
    relation: int | None = None


Shapes = tuple[tuple[float, float], ...]
"""Width and height of each emoji, the longer being 1."""


def held_out(one: str, other: str) -> bool:
    """Whether the two, subjects or a subject and a setting, are never trained together: a tenth of all pairs."""
    pair = "|".join(sorted((one, other)))
    return zlib.crc32(pair.encode()) % 10 < _OF_TEN_HELD_OUT


def is_held_out(scene: Scene) -> bool:
    """Whether any two of the scene's words are held out of training."""
    first, setting = SUBJECTS[scene.first].name, _NAMES[scene.setting]
    if scene.second is None:
        return held_out(first, setting)
    second = SUBJECTS[scene.second].name
    return held_out(first, second) or held_out(first, setting) or held_out(second, setting)


def trained(rng: random.Random, shapes: Shapes) -> Scene:
    """A scene for training: nothing in it is held out."""
    while True:
        kind = rng.choices(("single", "several", "pair"), (0.33, 0.17, 0.5))[0]
        scene = _DRAWN[kind](rng, shapes)
        if not is_held_out(scene):
            return scene


def unseen(rng: random.Random, shapes: Shapes, kind: str) -> Scene:
    """A scene for judging, 'single', 'several' or 'pair': its subjects, or subject and setting, are held out."""
    while True:
        scene = _DRAWN[kind](rng, shapes, full_caption=True)
        first, setting = SUBJECTS[scene.first].name, _NAMES[scene.setting]
        if held_out(first, setting if scene.second is None else SUBJECTS[scene.second].name):
            return scene


def _place(rng: random.Random) -> tuple[int, int, float]:
    setting = rng.randrange(len(_NAMES))
    outdoors = _NAMES[setting] in OUTDOORS
    time = rng.choices(range(len(TIMES)), (0.55, 0.12, 0.15, 0.18))[0] if outdoors else 0
    return setting, time, rng.uniform(0.38, 0.68)


def _single(rng: random.Random, shapes: Shapes, full_caption: bool = False) -> Scene:
    setting, time, horizon = _place(rng)
    subject = rng.randrange(len(SUBJECTS))
    word = rng.choices(("", "small", "large"), (0.7, 0.15, 0.15))[0]
    size = {"": rng.uniform(0.4, 0.74), "small": rng.uniform(0.26, 0.36), "large": rng.uniform(0.78, 0.95)}[word]
    look = _look(rng, subject)
    y = rng.uniform(0.1, 0.9) if _NAMES[setting] in FLOATING else 0.97 - rng.random() * (0.9 - horizon) - size / 2
    figure = _inside(Figure(subject, rng.uniform(0.1, 0.9), y, size, rng.gauss(0, 0.1), *look), shapes)
    words = Words(rng, full_caption)
    caption = words.sentence(words.noun(subject, 1, look[1], word), setting, time)
    return Scene(caption, setting, time, horizon, (figure,), subject)


def _several(rng: random.Random, shapes: Shapes, full_caption: bool = False) -> Scene:
    setting, time, horizon = _place(rng)
    subject, count = rng.randrange(len(SUBJECTS)), rng.choice((2, 2, 3, 3, 4, 4))
    size = {2: rng.uniform(0.32, 0.46), 3: rng.uniform(0.28, 0.4), 4: rng.uniform(0.26, 0.38)}[count]
    look = _look(rng, subject)
    figures: list[Figure] = []
    while len(figures) < count:
        figures = _scatter(rng, shapes, subject, count, size, look[1])
        size *= 0.98
    words = Words(rng, full_caption)
    caption = words.sentence(words.noun(subject, count, look[1]), setting, time)
    return Scene(caption, setting, time, horizon, tuple(sorted(figures, key=lambda one: one.y)), subject, count)


def _scatter(
    rng: random.Random, shapes: Shapes, subject: int, count: int, size: float, colour: str | None
) -> list[Figure]:
    # Places that barely overlap, by trying; fewer than asked for if there is no room.
    found: list[Figure] = []
    width, height = shapes[subject]
    for _ in range(60):
        own = size * rng.uniform(0.85, 1.1)
        x, y = rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.9)
        figure = _inside(Figure(subject, x, y, own, rng.gauss(0, 0.08), rng.random() < 0.5, colour), shapes)
        if all(
            abs(figure.x - one.x) > 0.92 * width * size or abs(figure.y - one.y) > 0.92 * height * size for one in found
        ):
            found.append(figure)
        if len(found) == count:
            break
    return found


def _pair(rng: random.Random, shapes: Shapes, full_caption: bool = False) -> Scene:
    setting, time, horizon = _place(rng)
    relation = rng.choices(range(len(RELATIONS)), _RELATION_SHARES)[0]
    name = RELATIONS[relation]
    first, second = _pick(rng, name)
    count = rng.choices((1, 2, 3), (0.75, 0.17, 0.08))[0] if name in ("beside", "under") else 1
    looks = _look(rng, first), _look(rng, second)
    figures = _ARRANGED[name](rng, shapes, (first, second), looks, count)
    left, right = figures[0], figures[-1]
    words = Words(rng, full_caption)
    nouns = words.noun(first, count, looks[0][1]), words.noun(second, 1, looks[1][1])
    reverse = bool(REVERSED_PHRASES[name]) and rng.random() < 0.25
    phrase = rng.choice(REVERSED_PHRASES[name] if reverse else RELATION_PHRASES[name])
    said = f"{nouns[1]} {phrase} {nouns[0]}" if reverse else f"{nouns[0]} {phrase} {nouns[1]}"
    if name == "beside" and count == 1 and left.x > right.x:
        first, second = second, first
    return Scene(words.sentence(said, setting, time), setting, time, horizon, figures, first, count, second, relation)


def _pick(rng: random.Random, relation: str) -> tuple[int, int]:
    everything = range(len(SUBJECTS))
    while True:
        if relation == "riding":
            first, second = rng.choice(_BY_ROLE["r"]), rng.choice(_BY_ROLE["m"])
        elif relation == "on":
            first, second = rng.choice(_BY_ROLE["s"]), rng.choice(everything)
            if "m" in SUBJECTS[second].roles or "o" in SUBJECTS[second].roles:
                continue  # being on an animal or a bicycle is riding it; what floats carries nobody
        elif relation == "under":
            first, second = rng.choice(everything), rng.choice(_BY_ROLE["o"])
        else:
            first, second = rng.choice(everything), rng.choice(everything)
        if first != second:
            return first, second


Look = tuple[bool, str | None]


def _look(rng: random.Random, subject: int) -> Look:
    colour = rng.choice(tuple(COLOURS)) if SUBJECTS[subject].coloured and rng.random() < 0.4 else None
    return rng.random() < 0.5, colour


def _riding(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look], _: int
) -> tuple[Figure, ...]:
    below = rng.uniform(0.44, 0.7)
    above = below * rng.uniform(0.52, 0.66)
    return _stacked(rng, shapes, pair, looks, (below, above), sunk=rng.uniform(0.28, 0.4))


def _on(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look], _: int
) -> tuple[Figure, ...]:
    below, above = rng.uniform(0.42, 0.56), rng.uniform(0.3, 0.4)
    return _stacked(rng, shapes, pair, looks, (below, above), sunk=rng.uniform(-0.01, 0.05))


def _stacked(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look],
    sizes: tuple[float, float], sunk: float,
) -> tuple[Figure, ...]:  # fmt: skip
    # The first of the pair sits in the second, sunk by this part of the second's height.
    below = _inside(
        Figure(pair[1], rng.uniform(0.15, 0.85), rng.uniform(0.55, 0.85), sizes[0], rng.gauss(0, 0.05), *looks[1]),
        shapes,
    )
    heights = shapes[pair[1]][1] * sizes[0], shapes[pair[0]][1] * sizes[1]
    y = below.y - heights[0] / 2 + sunk * heights[0] - heights[1] / 2
    x = below.x + rng.uniform(-0.07, 0.07)
    down = max(0.0, _EDGE + heights[1] / 2 - y)
    below = Figure(below.subject, below.x, below.y + down, below.size, below.turn, below.flipped, below.colour)
    return below, Figure(pair[0], x, y + down, sizes[1], rng.gauss(0, 0.05), *looks[0])


def _under(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look], count: int
) -> tuple[Figure, ...]:
    over = _inside(
        Figure(pair[1], rng.uniform(0.3, 0.7), 0.0, rng.uniform(0.38, 0.54), rng.gauss(0, 0.07), *looks[1]), shapes
    )
    bottom = over.y + shapes[pair[1]][1] * over.size / 2
    size = min(rng.uniform(0.32, 0.44) / (1 + 0.2 * (count - 1)), 0.96 - bottom)
    x, y = over.x + rng.uniform(-0.1, 0.1), rng.uniform(bottom + size / 2 + 0.02, 0.98 - size / 2)
    return over, *_row(rng, shapes, pair[0], looks[0], (x, max(y, bottom + size / 2)), size, count)


def _beside(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look], count: int
) -> tuple[Figure, ...]:
    share = 0.26 + 0.1 * (count - 1)  # of the width, to the group's middle
    sizes = rng.uniform(0.34, 0.47) / (1, 1.35, 1.7)[count - 1], rng.uniform(0.34, 0.48)
    side = rng.choice((-1, 1))
    y = rng.uniform(0.5, 0.75)
    group = _row(
        rng, shapes, pair[0], looks[0], (0.5 - side * (0.5 - share), y + rng.uniform(-0.05, 0.05)), sizes[0], count
    )
    x = 0.5 + side * rng.uniform(0.24, 0.29)
    return *group, _inside(Figure(pair[1], x, y, sizes[1], rng.gauss(0, 0.07), *looks[1]), shapes)


def _behind(
    rng: random.Random, shapes: Shapes, pair: tuple[int, int], looks: tuple[Look, Look], _: int
) -> tuple[Figure, ...]:
    sizes = rng.uniform(0.5, 0.64), rng.uniform(0.38, 0.48)
    x, y = rng.uniform(0.3, 0.7), rng.uniform(0.32, 0.5)
    back = _inside(Figure(pair[0], x, y, sizes[0], rng.gauss(0, 0.07), *looks[0]), shapes)
    bottom = back.y + shapes[pair[0]][1] * sizes[0] / 2
    x = back.x + rng.choice((-1, 1)) * rng.uniform(0.08, 0.2)
    # In front is lower: it hides the foot of the one behind.
    y = bottom + rng.uniform(0.0, 0.08) - shapes[pair[1]][1] * sizes[1] * rng.uniform(0.2, 0.45)
    return back, _inside(Figure(pair[1], x, y, sizes[1], rng.gauss(0, 0.07), *looks[1]), shapes)


def _row(
    rng: random.Random, shapes: Shapes, subject: int, look: Look, middle: tuple[float, float], size: float, count: int
) -> list[Figure]:
    width = shapes[subject][0] * size
    step = max(width * 1.02, 0.1)
    return [
        _inside(
            Figure(
                subject, middle[0] + (place - (count - 1) / 2) * step, middle[1] + rng.uniform(-0.02, 0.02), size,
                rng.gauss(0, 0.05), *look,
            ),
            shapes,
        )
        for place in range(count)
    ]  # fmt: skip


def _inside(figure: Figure, shapes: Shapes) -> Figure:
    # The same, moved so that all of it is on the canvas.
    half_width, half_height = (edge * figure.size / 2 for edge in shapes[figure.subject])
    x = min(max(figure.x, half_width + _EDGE), 1 - half_width - _EDGE)
    y = min(max(figure.y, half_height + _EDGE), 1 - half_height - _EDGE)
    return Figure(figure.subject, x, y, figure.size, figure.turn, figure.flipped, figure.colour)


_DRAWN = {"single": _single, "several": _several, "pair": _pair}
KINDS = tuple(_DRAWN)
"""What scenes show: one figure, several of one kind, or a pair."""
_ARRANGED = {"riding": _riding, "on": _on, "under": _under, "beside": _beside, "behind": _behind}
