"""The policy of each size in a run: chosen once for a kind of device, by what the model takes there, then frozen."""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path

from batchgen.config import Config
from batchgen.errors import MemoryNeededError
from batchgen.events import EventLog
from batchgen.files import to_json
from batchgen.fitting import Engine
from batchgen.memory import kept
from batchgen.memory.choose import GIB, Choice, choose
from batchgen.memory.costs import Task, peak_bytes
from batchgen.memory.figures import Figures, estimate
from batchgen.memory.host import pinnable_bytes
from batchgen.memory.meters import Gauge
from batchgen.memory.policy import choose_policy, freeze
from batchgen.memory.probe import PROBED_UNDER, probe, probed_placement
from batchgen.plan import Plan, versions
from batchgen.types import Policy

_CHOSEN_FIELDS = ("micro_batch", "decode_chunk", "tile_px", "placement", "guidance_split")
# Estimates are not trusted to refuse a job that needs less than so many times what is free.
_ESTIMATE_MAY_BE_OFF = 1.5
_MUCH_MORE = 1.25
# Counted up when the same work takes other memory or time than before: what is kept is then measured anew.
_WAY_OF_COMPUTING = 3


class Known:
    """The figures that are kept for one model on one kind of device, under one way of computing."""

    def __init__(self, config: Config, model: str, device_kind: str, dtype: str) -> None:
        """`model`: its fingerprint."""
        self._facts = [_WAY_OF_COMPUTING, model, config.model.safety_checker, device_kind, dtype]
        self._facts += [asdict(config.speed), versions()]

    def load(self, task: Task) -> Figures | None:
        """What a probe found, best with all weights in place; None before the first."""
        found = (kept.load(self._key(task, placement)) for placement in PROBED_UNDER)
        return next((figures for figures in found if figures is not None), None)

    def load_for(self, task: Task, placement: str, free_bytes: int) -> Figures | None:
        """What a probe under `placement`, or with more in place, found; None where more memory would show more."""
        for better in PROBED_UNDER[: PROBED_UNDER.index(placement) + 1]:
            figures = kept.load(self._key(task, better))
            if figures and (figures.cut_at_bytes is None or free_bytes <= _MUCH_MORE * figures.cut_at_bytes):
                return figures
        return None

    def save(self, task: Task, placement: str, figures: Figures) -> None:
        """Keep what a probe found under `placement`."""
        kept.save(self._key(task, placement), figures)

    def _key(self, task: Task, placement: str) -> str:
        facts = [*self._facts, task.width, task.height, task.guided, placement]
        return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


class Policies:
    """The policies of one worker's device, and what it is predicted to take under them."""

    def __init__(self, plan: Plan, engine: Engine, log: EventLog) -> None:
        self._plan, self._engine, self._log = plan, engine, log
        self._known = Known(plan.config, str(plan.recipe["model"]), engine.device_kind, engine.dtype)
        self._policies: dict[tuple[int, int], Policy] = {}
        self._figures: dict[tuple[int, int], Figures] = {}

    def of(self, width: int, height: int) -> Policy:
        """The policy for images of this size. Raises MemoryNeededError if none fits."""
        if (width, height) not in self._policies:
            path = self._plan.run.policy(self._engine.device_kind, width, height)
            policy = freeze(path, lambda: self._choose(width, height))
            self._policies[width, height] = policy
            self._log.add("policy", width=width, height=height, policy=asdict(policy))
        return self._policies[width, height]

    def predicted_bytes(self, policy: Policy, width: int, height: int) -> int | None:
        """The peak of allocated bytes to expect on the device; None on the CPU."""
        if self._engine.gauge is None:
            return None
        task = task_of(self._plan.config, width, height, self._plan.images)
        if (width, height) not in self._figures:
            self._figures[width, height] = self._known.load(task) or self._engine.estimate(width, height)
        return peak_bytes(self._figures[width, height], policy, task)

    def _choose(self, width: int, height: int) -> Policy:
        config, engine = self._plan.config, self._engine
        fixed = config.memory.policy
        base = choose_policy(fixed, config.speed, width, height, engine.dtype, os.cpu_count() or 1)
        if engine.gauge is None or all(getattr(fixed, field) is not None for field in _CHOSEN_FIELDS):
            return base
        task = task_of(config, width, height, self._plan.images)
        figures = self._probed(task, base, engine.gauge)
        self._figures[width, height] = figures
        choice = choose(figures, task, engine.gauge.free_bytes(), pinnable_bytes(), fixed, base)
        self._log.add("chosen", width=width, height=height, reason=choice.reason, rejected=choice.table())
        return choice.option.policy

    def _probed(self, task: Task, base: Policy, gauge: Gauge) -> Figures:
        guess = self._engine.estimate(task.width, task.height)
        first = probed_placement(guess, task, base, gauge.free_bytes())
        if (known := self._known.load_for(task, first, gauge.free_bytes())) is not None:
            return known
        for placement in PROBED_UNDER[PROBED_UNDER.index(first) :]:
            try:
                figures = probe(self._engine, gauge, guess, task, base, placement)
            except MemoryNeededError as error:
                self._log.add("probe_failed", under=placement, said=str(error))
                failed = error
                continue
            self._known.save(task, placement, figures)
            self._log.add("probed", under=placement, figures=asdict(figures))
            return figures
        raise failed


def task_of(config: Config, width: int, height: int, images: int) -> Task:
    """A batch of this size, as the job makes them."""
    job = config.job
    return Task(width, height, max(1, min(job.batch_size, images)), job.steps, job.guidance > 1.0)


def foresee(
    config: Config, folder: Path, model: str, task: Task, device_kind: str, dtype: str, budget_bytes: int
) -> tuple[Choice, bool]:
    """What a worker would choose with so much memory, and whether by measured figures. Loads nothing, needs no torch.

    Raises MemoryNeededError where nothing fits, though not on the word of an estimate that may be off.
    """
    measured = Known(config, model, device_kind, dtype).load(task)
    checked = config.model.safety_checker != "off"
    figures = measured or estimate(folder, config.model.variant, dtype, task.width, task.height, checked)
    fixed = config.memory.policy
    base = choose_policy(fixed, config.speed, task.width, task.height, dtype, os.cpu_count() or 1)
    host_bytes = pinnable_bytes()
    try:
        return choose(figures, task, budget_bytes, host_bytes, fixed, base), measured is not None
    except MemoryNeededError as needed:
        if measured:
            raise
        try:
            choice = choose(figures, task, int(_ESTIMATE_MAY_BE_OFF * budget_bytes), host_bytes, fixed, base)
        except MemoryNeededError:
            raise needed from None
    option = choice.option
    reason = (
        f"{option.name}: {option.peak_bytes / GIB:.1f} GiB, more than the {budget_bytes / GIB:.1f} GiB free, and tried "
        "nevertheless"
    )
    return replace(choice, reason=reason), False
