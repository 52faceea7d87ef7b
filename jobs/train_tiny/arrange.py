"""Where the figures of a scene stand. Places, sizes and angles are random within what the relation allows."""

import random
from dataclasses import dataclass, replace

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
    colour: str | None = None


Shapes = tuple[tuple[float, float], ...]
"""Width and height of each emoji, the longer being 1."""


@dataclass(frozen=True)
class Actor:
    """A subject that is to be placed, in the given colour or its own."""

    subject: int
    colour: str | None


class Arranger:
    """Places figures, from the back to the front."""

    def __init__(self, rng: random.Random, shapes: Shapes) -> None:
        self._rng, self._shapes = rng, shapes

    def alone(self, actor: Actor, size: float, horizon: float | None) -> tuple[Figure, ...]:
        """Place one figure on the ground below the horizon, or anywhere if there is no horizon."""
        rng = self._rng
        y = rng.uniform(0.1, 0.9) if horizon is None else 0.97 - rng.random() * (0.9 - horizon) - size / 2
        return (self._figure(actor, rng.uniform(0.1, 0.9), y, size, 0.05),)

    def several(self, actor: Actor, count: int) -> tuple[Figure, ...]:
        """Place figures of one kind that barely overlap."""
        size = self._rng.uniform(*{2: (0.32, 0.46), 3: (0.28, 0.4), 4: (0.26, 0.38)}[count])
        figures: list[Figure] = []
        while len(figures) < count:
            figures = self._scatter(actor, count, size)
            size *= 0.98
        return tuple(sorted(figures, key=lambda one: one.y))

    def _scatter(self, actor: Actor, count: int, size: float) -> list[Figure]:
        # It tries random places, and places fewer than asked for if there is no room.
        rng, found = self._rng, list[Figure]()
        width, height = (0.92 * edge * size for edge in self._shapes[actor.subject])
        for _ in range(60):
            new = self._figure(actor, rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.9), size * rng.uniform(0.85, 1.1), 0.08)
            if all(abs(new.x - old.x) > width or abs(new.y - old.y) > height for old in found):
                found.append(new)
            if len(found) == count:
                break
        return found

    def riding(self, first: Actor, second: Actor, _: int) -> tuple[Figure, ...]:
        """The first sits in the second's back half: animals face left, so that the head is clear."""
        rng = self._rng
        below = rng.uniform(0.5, 0.82)
        mount, rider = self._stacked(
            first, second, below * rng.uniform(0.42, 0.54), below, sunk=rng.uniform(0.28, 0.42)
        )
        return mount, replace(rider, x=mount.x + below * rng.uniform(0.03, 0.14))

    def on(self, first: Actor, second: Actor, _: int) -> tuple[Figure, ...]:
        """The first stands on the second's top."""
        below, above = self._rng.uniform(0.42, 0.56), self._rng.uniform(0.3, 0.4)
        return self._stacked(first, second, above, below, sunk=self._rng.uniform(-0.01, 0.05))

    def _stacked(self, first: Actor, second: Actor, above: float, below: float, sunk: float) -> tuple[Figure, ...]:
        # `sunk`: by this part of the lower one's height the upper one's foot is below its top.
        rng = self._rng
        lower = self._figure(second, rng.uniform(0.15, 0.85), rng.uniform(0.55, 0.85), below, 0.05)
        lower_height, upper_height = self._height(second, below), self._height(first, above)
        y = lower.y - lower_height / 2 + sunk * lower_height - upper_height / 2
        down = max(0.0, _EDGE + upper_height / 2 - y)
        turn, x = rng.gauss(0, 0.05), lower.x + rng.uniform(-0.07, 0.07)
        upper = Figure(first.subject, x, y + down, above, turn, first.colour)
        return replace(lower, y=lower.y + down), upper

    def under(self, first: Actor, second: Actor, count: int) -> tuple[Figure, ...]:
        """The second floats at the top; the first, or several of it, stand below."""
        rng = self._rng
        over = self._figure(second, rng.uniform(0.3, 0.7), 0.0, rng.uniform(0.38, 0.54), 0.07)
        bottom = over.y + self._height(second, over.size) / 2
        size = min(rng.uniform(0.32, 0.44) / (1 + 0.2 * (count - 1)), 0.96 - bottom)
        x, y = over.x + rng.uniform(-0.1, 0.1), rng.uniform(bottom + size / 2 + 0.02, 0.98 - size / 2)
        return over, *self._row(first, x, max(y, bottom + size / 2), size, count)

    def beside(self, first: Actor, second: Actor, count: int) -> tuple[Figure, ...]:
        """The first, or several of it, on one side and the second on the other."""
        rng = self._rng
        middle = 0.26 + 0.1 * (count - 1)  # of the width, to the group's middle
        size = rng.uniform(0.34, 0.47) / (1, 1.35, 1.7)[count - 1]
        side, y = rng.choice((-1, 1)), rng.uniform(0.5, 0.75)
        group = self._row(first, 0.5 - side * (0.5 - middle), y + rng.uniform(-0.05, 0.05), size, count)
        other = self._figure(second, 0.5 + side * rng.uniform(0.24, 0.29), y, rng.uniform(0.34, 0.48), 0.07)
        return *group, other

    def behind(self, first: Actor, second: Actor, _: int) -> tuple[Figure, ...]:
        """The second stands in front, lower, and hides the first's foot."""
        rng = self._rng
        back = self._figure(first, rng.uniform(0.3, 0.7), rng.uniform(0.32, 0.5), rng.uniform(0.5, 0.64), 0.07)
        size = rng.uniform(0.38, 0.48)
        bottom = back.y + self._height(first, back.size) / 2
        x = back.x + rng.choice((-1, 1)) * rng.uniform(0.08, 0.2)
        y = bottom + rng.uniform(0.0, 0.08) - self._height(second, size) * rng.uniform(0.2, 0.45)
        return back, self._figure(second, x, y, size, 0.07)

    def _row(self, actor: Actor, x: float, y: float, size: float, count: int) -> list[Figure]:
        step = max(self._shapes[actor.subject][0] * size * 1.02, 0.1)
        places = (x + (place - (count - 1) / 2) * step for place in range(count))
        return [self._figure(actor, place, y + self._rng.uniform(-0.02, 0.02), size, 0.05) for place in places]

    def _figure(self, actor: Actor, x: float, y: float, size: float, tilt: float) -> Figure:
        # Move it so that all of it is on the canvas
        half_width, half_height = (edge * size / 2 + _EDGE for edge in self._shapes[actor.subject])
        x, y = min(max(x, half_width), 1 - half_width), min(max(y, half_height), 1 - half_height)
        return Figure(actor.subject, x, y, size, self._rng.gauss(0, tilt), actor.colour)

    def _height(self, actor: Actor, size: float) -> float:
        return self._shapes[actor.subject][1] * size
