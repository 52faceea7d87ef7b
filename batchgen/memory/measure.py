"""What a size takes on this kind of device: measured if that is worth its time, else the next best figures."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from batchgen.config.schema import Config
from batchgen.engine import Engine, Gauge
from batchgen.errors import MemoryNeededError
from batchgen.events import EventLog
from batchgen.files import to_json
from batchgen.machine.versions import versions
from batchgen.memory import cache
from batchgen.memory.costs import Task
from batchgen.memory.defaults import default_policy
from batchgen.memory.estimate import at_speed, estimate
from batchgen.memory.figures import Figures, scaled, serves
from batchgen.memory.host_bytes import Host
from batchgen.memory.probe import PROBED_UNDER, probe, probed_placement
from batchgen.memory.worth import images_for_a_probe, nearest
from batchgen.models.find import locate
from batchgen.plan.store import Plan
from batchgen.policy import Policy

# Raise this when the same work takes other memory or time than before, so that figures in the cache are measured again.
_WAY_OF_COMPUTING = 4


def facts_of(config: Config, model: str, device_kind: str, dtype: str) -> list[Any]:
    """What must be the same for measured figures to hold; `model` is the model's fingerprint."""
    chunks = config.model.text_chunks
    return [
        _WAY_OF_COMPUTING, model, config.model.safety_checker, device_kind, dtype, _speed_of(config), versions(),
        *([chunks] if chunks > 1 else []),
    ]  # fmt: skip


def _speed_of(config: Config) -> dict[str, Any]:
    # Figures are always those of eager computing.
    return {name: value for name, value in asdict(config.speed).items() if name != "compile"}


class Known:
    """The figures in the cache for one model on one kind of device, under one way of computing."""

    def __init__(self, config: Config, model: str, device_kind: str, dtype: str) -> None:
        """`model` is the model's fingerprint."""
        self._facts = facts_of(config, model, device_kind, dtype)

    def load(self, task: Task, last: str = PROBED_UNDER[-1]) -> Figures | None:
        """What a probe found under `last`, or rather with more weights in place; None before the first probe."""
        placements = PROBED_UNDER[: PROBED_UNDER.index(last) + 1]
        found = (cache.load(self._key(task, placement)) for placement in placements)
        return next((figures for figures in found if figures is not None), None)

    def load_for(self, task: Task, placement: str, free_bytes: int, images: int) -> Figures | None:
        """What a probe found under `placement` or with more weights in place; None if another would show more."""
        for better in PROBED_UNDER[: PROBED_UNDER.index(placement) + 1]:
            figures = cache.load(self._key(task, better))
            if figures and serves(figures, free_bytes, task.rows, images):
                return figures
        return None

    def save(self, task: Task, placement: str, figures: Figures) -> None:
        """Keep what a probe under `placement` found."""
        cache.save(self._key(task, placement), figures)

    def _key(self, task: Task, placement: str) -> str:
        facts = [*self._facts, task.width, task.height, task.guided, placement]
        return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


def base_policy(config: Config, task: Task, dtype: str) -> Policy:
    """The policy whose fields hold where memory does not decide."""
    return default_policy(config.memory.policy, config.speed, task.width, task.height, dtype, os.cpu_count() or 1)


def guess(plan: Plan, dtype: str, width: int, height: int) -> Figures:
    """The figures estimated from the files of the plan's model. Raises ModelError and OSError."""
    return estimate(locate(plan.config.model), dtype, width, height)


class Measuring:
    """The figures of each size of a run, as one worker finds them."""

    def __init__(self, plan: Plan, engine: Engine, gauge: Gauge, log: EventLog, host: Callable[[], Host]) -> None:
        """`host` finds out what the host has for this worker."""
        self._host = host
        self._plan, self._engine, self._gauge, self._log = plan, engine, gauge, log
        self._known = Known(plan.config, str(plan.recipe["model"]), engine.device_kind, engine.dtype)
        self._guesses: dict[tuple[int, int], Figures] = {}
        self._in_run: dict[tuple[int, int], Figures | None] = {}
        self._speed: tuple[float | None, float] | None = None
        self._unread = plan.prompts()
        self._counts: Counter[tuple[int, int]] = Counter()

    def find(self, task: Task) -> Figures:
        """The figures to choose by: known, measured now, taken from a similar size, or estimated.

        If a probe would find more than that, `short_images` is set. Raises MemoryNeededError, as `probe` does.
        """
        guess, free_bytes, images = self._guess(task), self._gauge.free_bytes(), self._plan.images
        in_run = cache.read(self._plan.run.figures(self._engine.device_kind, task.width, task.height))
        if in_run is not None and in_run.measured and serves(in_run, free_bytes, task.rows, images):
            return in_run  # the worker that measured ended before it chose
        first = probed_placement(guess, task, self._base(task), free_bytes)
        if (known := self._known.load_for(task, first, free_bytes, images)) is not None:
            return known
        if self.pays(task) and self._holds(task, first):
            return self._probed(task, first)
        figures = self._known.load(task, first) or self._like_another(task) or guess
        self._log.add("not_probed", width=task.width, height=task.height, measured=figures.measured)
        return replace(figures, short_images=images)

    def pays(self, task: Task) -> bool:
        """Whether a probe of this size costs little beside the images of this size.

        If the run has measured no similar size, all images of the job count.
        """
        enough = images_for_a_probe(self._guess(task), task)
        if self._has_images(task, enough):
            return True
        pixels = sum(count * width * height for (width, height), count in self._counts.items())
        return pixels >= enough * task.pixels and self._like_another(task) is None

    def _base(self, task: Task) -> Policy:
        return replace(base_policy(self._plan.config, task, self._engine.dtype), compile="eager")

    def _probed(self, task: Task, first: str) -> Figures:
        guess, base = self._guess(task), self._base(task)
        for placement in PROBED_UNDER[PROBED_UNDER.index(first) :]:
            if not self._holds(task, placement):
                continue
            try:
                streams = self._holds(task, PROBED_UNDER[-1])
                figures = probe(self._engine, self._gauge, guess, task, base, placement, self._plan.images, streams)
            except MemoryNeededError as error:
                self._log.add("probe_failed", under=placement, said=str(error))
                failed = error
                continue
            self._known.save(task, placement, figures)
            self._log.add("probed", under=placement, figures=asdict(figures))
            return figures
        raise failed

    def _holds(self, task: Task, placement: str) -> bool:
        return self._host().holds(self._guess(task).weights, placement)

    def _like_another(self, task: Task) -> Figures | None:
        # From what the run has measured of a similar size
        run, kind, size = self._plan.run, self._engine.device_kind, (task.width, task.height)
        for new in set(run.sizes_with_figures(kind)) - self._in_run.keys():
            self._in_run[new] = cache.read(run.figures(kind, *new))
        measured = {one: figures for one, figures in self._in_run.items() if figures and figures.measured}
        near = nearest([one for one in measured if one != size], task)
        if near is None:
            return None
        return scaled(measured[near], near[0] * near[1], task.pixels, self._guess(task))

    def _guess(self, task: Task) -> Figures:
        size = (task.width, task.height)
        if self._speed is None:
            self._speed = self._gauge.flop_per_s(self._engine.dtype), self._gauge.copied_bytes_per_s()
        if size not in self._guesses:
            self._guesses[size] = at_speed(guess(self._plan, self._engine.dtype, *size), *self._speed)
        return self._guesses[size]

    def _has_images(self, task: Task, enough: int) -> bool:
        # The plan is read once, and only until enough images of this size are found.
        size = (task.width, task.height)
        while self._counts[size] < enough and (prompt := next(self._unread, None)) is not None:
            self._counts[prompt.width, prompt.height] += 1
        return self._counts[size] >= enough
