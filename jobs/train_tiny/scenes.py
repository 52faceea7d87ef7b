"""Scenes: which emoji stand where in which setting, and the sentence that says so."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from jobs.train_tiny.arrange import Actor, Arranger, Figure, Shapes
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
_KIND_SHARES = (0.45, 0.15, 0.4)  # of KINDS, in training
_SIZES = {"": (0.45, 0.78), "small": (0.26, 0.36), "large": (0.78, 0.95)}


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
        kind = rng.choices(KINDS, _KIND_SHARES)[0]
        scene = _KINDS[kind](rng, shapes, False)
        if not is_held_out(scene):
            return scene


def unseen(rng: random.Random, shapes: Shapes, kind: str) -> Scene:
    """A scene for judging, of one of KINDS: its subjects, or subject and setting, are held out; nothing is unsaid."""
    while True:
        scene = _KINDS[kind](rng, shapes, True)
        first, setting = SUBJECTS[scene.first].name, _NAMES[scene.setting]
        if held_out(first, setting if scene.second is None else SUBJECTS[scene.second].name):
            return scene


def _place(rng: random.Random) -> tuple[int, int, float]:
    # Setting, time of day and horizon
    setting = rng.randrange(len(_NAMES))
    outdoors = _NAMES[setting] in OUTDOORS
    time = rng.choices(range(len(TIMES)), (0.55, 0.12, 0.15, 0.18))[0] if outdoors else 0
    return setting, time, rng.uniform(0.38, 0.68)


def _actor(rng: random.Random, subject: int) -> Actor:
    colour = rng.choice(tuple(COLOURS)) if SUBJECTS[subject].coloured and rng.random() < 0.4 else None
    return Actor(subject, colour)


def _single(rng: random.Random, shapes: Shapes, full_caption: bool) -> Scene:
    setting, time, horizon = _place(rng)
    actor = _actor(rng, rng.randrange(len(SUBJECTS)))
    word = rng.choices(tuple(_SIZES), (0.7, 0.15, 0.15))[0]
    ground = None if _NAMES[setting] in FLOATING else horizon
    figures = Arranger(rng, shapes).alone(actor, rng.uniform(*_SIZES[word]), ground)
    words = Words(rng, full_caption)
    caption = words.sentence(words.noun(actor.subject, 1, actor.colour, word), setting, time)
    return Scene(caption, setting, time, horizon, figures, actor.subject)


def _several(rng: random.Random, shapes: Shapes, full_caption: bool) -> Scene:
    setting, time, horizon = _place(rng)
    actor, count = _actor(rng, rng.randrange(len(SUBJECTS))), rng.choice((2, 3, 4))
    figures = Arranger(rng, shapes).several(actor, count)
    words = Words(rng, full_caption)
    caption = words.sentence(words.noun(actor.subject, count, actor.colour), setting, time)
    return Scene(caption, setting, time, horizon, figures, actor.subject, count)


def _pair(rng: random.Random, shapes: Shapes, full_caption: bool) -> Scene:
    setting, time, horizon = _place(rng)
    relation = rng.choices(range(len(RELATIONS)), _RELATION_SHARES)[0]
    name = RELATIONS[relation]
    first, second = _pick(rng, name)
    count = rng.choices((1, 2, 3), (0.75, 0.17, 0.08))[0] if name in ("beside", "under") else 1
    one, other = _actor(rng, first), _actor(rng, second)
    figures = getattr(Arranger(rng, shapes), name)(one, other, count)
    words = Words(rng, full_caption)
    nouns = words.noun(first, count, one.colour), words.noun(second, 1, other.colour)
    reverse = bool(REVERSED_PHRASES[name]) and rng.random() < 0.25
    phrase = rng.choice(REVERSED_PHRASES[name] if reverse else RELATION_PHRASES[name])
    said = f"{nouns[1]} {phrase} {nouns[0]}" if reverse else f"{nouns[0]} {phrase} {nouns[1]}"
    if name == "beside" and count == 1 and figures[0].x > figures[-1].x:
        first, second = second, first
    return Scene(words.sentence(said, setting, time), setting, time, horizon, figures, first, count, second, relation)


def _pick(rng: random.Random, relation: str) -> tuple[int, int]:
    # Two subjects that may stand so
    everything = range(len(SUBJECTS))
    while True:
        first, second = rng.choice(everything), rng.choice(everything)
        if relation == "riding":
            first, second = rng.choice(_BY_ROLE["r"]), rng.choice(_BY_ROLE["m"])
        elif relation == "on":
            first = rng.choice(_BY_ROLE["s"])
            if set("mo") & set(SUBJECTS[second].roles):
                continue  # being on an animal or a bicycle is riding it; what floats carries nobody
        elif relation == "under":
            second = rng.choice(_BY_ROLE["o"])
        if first != second:
            return first, second


_KINDS: dict[str, Callable[[random.Random, Shapes, bool], Scene]] = {
    "single": _single,
    "several": _several,
    "pair": _pair,
}
KINDS = tuple(_KINDS)
"""What scenes show: one figure, several of one kind, or a pair."""
