"""How texts are read: the options of a job, and the weights of words that a text may hold. No torch here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Self

from batchgen.config.schema import ModelConfig

_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_PARTS = re.compile(r"\\[()\[\]]|[()\[\]]|[^\\()\[\]]+|\\", re.DOTALL)
_NUMBER = r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*"
_SAID = re.compile(_NUMBER + r"\Z")
_HOLDS_ONE = re.compile(rf"(?<!\\)\([^()]+{_NUMBER}\)")


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What a job says of how its texts are encoded, under the names that `model` has for it in the configuration.

    Sizes are (width, height) and places (x, y), in pixels.
    """

    clip_skip: int | None = None
    text_chunks: int = 1
    prompt_weights: bool = False
    original_size: tuple[int, int] | None = None
    crop_top_left: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_crop_top_left: tuple[int, int] | None = None
    negative_target_size: tuple[int, int] | None = None

    @classmethod
    def of(cls, said: ModelConfig | Mapping[str, Any]) -> Self:
        """The options of a configuration, or of what `asdict` and JSON made of options."""
        values = said if isinstance(said, Mapping) else vars(said)
        given: dict[str, Any] = {one.name: values[one.name] for one in fields(cls)}
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**given)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the options that are not left as they are."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) != one.default)

    @property
    def told(self) -> dict[str, tuple[int, int]]:
        """The sizes and places, by the keywords of diffusers' pipelines: as (height, width) and (y, x)."""
        values = {name: getattr(self, name) for name in SIZES}
        return {
            name.replace("crop_", "crops_coords_"): value[::-1] for name, value in values.items() if value is not None
        }


SIZES = tuple(one.name for one in fields(TextOptions) if one.name.endswith(("_size", "_top_left")))
"""The options that tell a model of sizes."""


def holds_weights(text: str) -> bool:
    """Whether a text has words with a weight that is written out, such as `(word:1.2)`."""
    return _HOLDS_ONE.search(text) is not None


def weighted(text: str) -> list[tuple[str, float]]:
    """The pieces of a text and their weights, as the notation of AUTOMATIC1111's web UI means it.

    `(a)` multiplies the weight by 1.1, `[a]` divides by it, `(a:1.3)` multiplies by 1.3, and they nest. A bracket that
    is never closed holds to the end, one that closes nothing is text, and so is one after a backslash. Neighbours of
    one weight are one piece, so that a text without brackets is a single piece.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # how many texts are before each bracket that is open
    before = ""
    for part in _PARTS.findall(text):
        bracket = {")": "(", "]": "["}.get(part)
        if part in opened:
            opened[part].append(len(texts))
        elif bracket is not None and opened[bracket]:
            factor, said = _FACTORS[bracket], _SAID.search(before) if bracket == "(" else None
            if said is not None:
                texts[-1], factor = before[: said.start()], float(said[1])
            _multiply(weights, opened[bracket].pop(), factor)
        else:
            texts.append(part[1:] if len(part) == 2 and part[0] == "\\" else part)
            weights.append(1.0)
        before = "" if part in "()[]" else part
    for bracket, places in opened.items():
        for place in places:
            _multiply(weights, place, _FACTORS[bracket])
    pairs = [(one, weight) for one, weight in zip(texts, weights, strict=True) if one]
    same = groupby(pairs, key=lambda pair: pair[1])
    return [("".join(one for one, _ in pieces), weight) for weight, pieces in same] or [("", 1.0)]


def _multiply(weights: list[float], start: int, factor: float) -> None:
    for place in range(start, len(weights)):
        weights[place] *= factor
