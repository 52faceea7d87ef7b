"""The policy of each size in a run: it is chosen once for each kind of device, by measured figures, then frozen.

One worker for each kind of device measures and chooses; the others wait for it. A card that cannot hold the frozen
policy has one of its own, chosen by the same figures or found by stepping down. It begins with that the next time.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from batchgen import files
from batchgen.config.schema import Config
from batchgen.engine import Engine, Gauge
from batchgen.errors import BrokenRunError, MemoryNeededError, StoppedError
from batchgen.events import EventLog
from batchgen.files import put_new, to_json
from batchgen.machine.host import Room, own_room
from batchgen.memory import cache
from batchgen.memory.choose import Choice, choose
from batchgen.memory.costs import Task, peak_bytes
from batchgen.memory.estimate import estimate
from batchgen.memory.figures import Figures, serves
from batchgen.memory.host_bytes import Host
from batchgen.memory.loading import made_bytes
from batchgen.memory.measure import Known, Measuring, base_policy, guess
from batchgen.models.find import ModelFiles, locate
from batchgen.placements import PLACEMENTS
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.shards.leases import Lease, Watch
from batchgen.types import GUIDED_ABOVE
from batchgen.units import GIB

_CHOSEN_FIELDS = ("micro_batch", "decode_chunk", "tile_px", "placement", "guidance_split")
# An estimate may only refuse a job that needs more than this many times the free memory.
_ESTIMATE_MAY_BE_OFF = 1.5
_LOOK_AGAIN_S = 0.5


class Policies:
    """The policies of one worker's device, and the memory it is predicted to take under them."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        log: EventLog,
        worker: str,
        watch: Watch,
        stop: threading.Event,
        quicken: Callable[[Task, Policy, Figures], Policy] = lambda task, policy, figures: policy,
    ) -> None:
        """`worker` is its name in leases, and `watch` watches others' leases. Once `stop` is set it no longer waits.

        `quicken` gives the levers of speed to a policy that memory was planned for.
        """
        self._quicken = quicken
        self._plan, self._engine, self._log = plan, engine, log
        self._worker, self._watch, self._stop = worker, watch, stop
        # If there is no device memory to plan for there is no card, and the machine has a policy of its own.
        self._card = engine.gauge.card if engine.gauge else socket.gethostname()
        self._measuring = Measuring(plan, engine, engine.gauge, log, lambda: self._host) if engine.gauge else None
        self._policies: dict[tuple[int, int], Policy] = {}
        self._figures: dict[tuple[int, int], Figures] = {}

    @property
    def strict_rows(self) -> int | None:
        """How many rows a full batch has under determinism=strict; None under best."""
        config = self._plan.config
        return config.job.batch_size if config.determinism == "strict" else None

    def of(self, width: int, height: int) -> Policy:
        """The policy for images of this size in pixels on this card.

        Raises MemoryNeededError if none fits, and StoppedError if told to stop while another worker measures.
        """
        if (width, height) not in self._policies:
            policy = self._of(task_of(self._plan.config, width, height))
            self._policies[width, height] = policy
            self._log.add("policy", width=width, height=height, policy=asdict(policy))
        return self._policies[width, height]

    def placements(self, width: int, height: int) -> Collection[str]:
        """The placements that the host has the memory for; all on the CPU, where weights stay where they are."""
        if self._engine.gauge is None:
            return tuple(PLACEMENTS)
        weights = guess(self._plan, self._engine.dtype, width, height).weights
        return [name for name in PLACEMENTS if self._host.holds(weights, name)]

    def step_down(self, width: int, height: int, policy: Policy) -> None:
        """Use `policy` on this card from now on, because images of this size did not fit; a restart does so, too."""
        self._policies[width, height] = policy
        with suppress(OSError):  # a full disk must not end the work; the next start then finds it out again
            files.replace(self._card_path(width, height), policy_bytes(policy))

    def predicted_bytes(self, policy: Policy, width: int, height: int) -> int | None:
        """The predicted peak of allocated bytes on the device; None on the CPU."""
        if self._engine.gauge is None:
            return None
        task = task_of(self._plan.config, width, height)
        if (width, height) not in self._figures:
            known = Known(
                self._plan.config, str(self._plan.recipe["model"]), self._engine.device_kind, self._engine.dtype
            )
            figures = cache.read(self._figures_path(task)) or known.load(task)
            self._figures[width, height] = figures or guess(self._plan, self._engine.dtype, width, height)
        return peak_bytes(self._figures[width, height], policy, task)

    def _of(self, task: Task) -> Policy:
        gauge, fixed = self._engine.gauge, self._plan.config.memory.policy
        own, path = self._card_path(task.width, task.height), self._path(task)
        if gauge is None or self._measuring is None or all(getattr(fixed, one) is not None for one in _CHOSEN_FIELDS):
            frozen = freeze(path, lambda: self._base(task))
            found = read_policy(own) if own.exists() else frozen
            if found.placement not in self.placements(task.width, task.height):
                weights = guess(self._plan, self._engine.dtype, task.width, task.height).weights
                raise MemoryNeededError(self._host.lacks(weights, found.placement, by_hand=True))
            return found
        self._freeze(task, gauge, self._measuring)
        return self._held(task, gauge, read_policy(own if own.exists() else path))

    def _freeze(self, task: Task, gauge: Gauge, measuring: Measuring) -> None:
        # This worker measures and chooses, unless another one does
        while self._is_open(task, measuring):
            with self._as_prober() as mine:
                if mine and self._is_open(task, measuring):
                    figures = measuring.find(task)
                    cache.write(self._figures_path(task), figures)
                    # It is chosen for a card that nobody else uses, so that the fullest card does not decide for all.
                    choice = self._choose(task, figures, max(gauge.free_bytes(), gauge.whole_bytes()))
                    files.replace(self._path(task), policy_bytes(self._quicken(task, choice, figures)))
            if not mine and self._stop.wait(_LOOK_AGAIN_S):
                raise StoppedError("stopped while another worker was measuring; the same command goes on")

    def _is_open(self, task: Task, measuring: Measuring) -> bool:
        # There is no policy, or it was chosen when the job had too few images for a probe, and now it has enough.
        if not self._path(task).exists():
            return True
        figures = cache.read(self._figures_path(task))
        grown = figures is not None and not serves(figures, 0, 0, self._plan.images)
        return grown and measuring.pays(task)

    @contextmanager
    def _as_prober(self) -> Iterator[bool]:
        # Whether this worker is the one that measures for its kind of device. The engine's beat renews its lease.
        lease = Lease.take_named(self._plan.run.probe_lease(self._engine.device_kind), self._worker, self._watch)
        if lease is None:
            yield False
            return
        before, self._engine.beat = self._engine.beat, lease.beat
        try:
            yield True
        finally:
            self._engine.beat = before
            lease.release()

    @cached_property
    def _host(self) -> Host:
        config = self._plan.config
        made = made_bytes(locate(config.model), self._engine.dtype, config.speed.channels_last)
        return Host(own_room(os.environ), made)

    def _held(self, task: Task, gauge: Gauge, frozen: Policy) -> Policy:
        # The frozen policy, or, if this card or its host cannot hold it, a policy of the card's own
        figures = cache.read(self._figures_path(task))
        if figures is None:
            return frozen
        on_host = self._host.holds(figures.weights, frozen.placement)
        for same_bits in (frozen, frozen.without_graphs):
            if on_host and peak_bytes(figures, same_bits, task) <= gauge.free_bytes():
                return same_bits
        if self.strict_rows is not None and not on_host:
            raise MemoryNeededError(self._host.lacks(figures.weights, frozen.placement))
        if self.strict_rows is not None:
            raise MemoryNeededError(
                f"{task.width}x{task.height} px: this card has {gauge.free_bytes() / GIB:.2f} GiB free, too little for "
                "the policy of this run, and determinism=strict allows no other: free some, or leave this card out"
            )
        own = self._choose(task, figures, gauge.free_bytes())  # eager, unless something else was asked for
        files.replace(self._card_path(task.width, task.height), policy_bytes(own))
        return own

    def _choose(self, task: Task, figures: Figures, budget_bytes: int) -> Policy:
        fixed = self._plan.config.memory.policy
        base = self._base(task)
        try:
            choice = choose(figures, task, budget_bytes, self._host, fixed, base)
        except MemoryNeededError:
            if base.without_graphs == base:
                raise
            choice = choose(figures, task, budget_bytes, self._host, fixed, base.without_graphs)
            why = "there is no memory for CUDA graphs"
            self._log.add("levers", width=task.width, height=task.height, compile="whole", reason=why)
        table, measured = choice.table(), figures.measured
        facts = {"width": task.width, "height": task.height, "reason": choice.reason, "rejected": table}
        self._log.add("chosen", **facts, measured=measured)
        return choice.option.policy

    def _base(self, task: Task) -> Policy:
        return base_policy(self._plan.config, task, self._engine.dtype)

    def _path(self, task: Task) -> Path:
        return self._plan.run.policy(self._engine.device_kind, task.width, task.height)

    def _figures_path(self, task: Task) -> Path:
        return self._plan.run.figures(self._engine.device_kind, task.width, task.height)

    def _card_path(self, width: int, height: int) -> Path:
        return self._plan.run.card_policy(self._engine.device_kind, width, height, self._card)


def task_of(config: Config, width: int, height: int) -> Task:
    """A full batch of this size in pixels, as the job makes it, even if a trial of the job has fewer images."""
    job, above = config.job, config.model.guided_above
    return Task(width, height, job.batch_size, job.steps, job.guidance > (GUIDED_ABOVE if above is None else above))


def foresee(
    config: Config,
    model: ModelFiles,
    fingerprint: str,
    task: Task,
    device_kind: str,
    dtype: str,
    budget_bytes: int,
    room: Room | None = None,
) -> tuple[Choice, bool]:
    """What a worker would choose with this much memory, and whether by measured figures. It works without torch.

    `room`: what its host has for it; None where that is not known.

    Raises MemoryNeededError if nothing fits. If the figures are only estimated, it must be clear that nothing fits.
    """
    measured = Known(config, fingerprint, device_kind, dtype).load(task)
    figures = measured or estimate(model, dtype, task.width, task.height)
    fixed = config.memory.policy
    base = base_policy(config, task, dtype)
    host = Host(room, made_bytes(model, dtype, config.speed.channels_last))
    try:
        return choose(figures, task, budget_bytes, host, fixed, base), measured is not None
    except MemoryNeededError as needed:
        if measured:
            raise
        try:
            choice = choose(figures, task, int(_ESTIMATE_MAY_BE_OFF * budget_bytes), host, fixed, base)
        except MemoryNeededError:
            raise needed from None
    option = choice.option
    reason = (
        f"{option.name}: {option.peak_bytes / GIB:.1f} GiB, more than the {budget_bytes / GIB:.1f} GiB free, but tried "
        "anyway"
    )
    return replace(choice, reason=reason), False


def freeze(path: Path, choose: Callable[[], Policy]) -> Policy:
    """The policy at `path`. If there is none, the policy that `choose` gives is put there, for all workers and resumes.

    If two workers do this at once, the first one's policy holds. Raises BrokenRunError if `path` holds no policy.
    """
    if not path.exists():
        put_new(path, policy_bytes(choose()))
    return read_policy(path)


def policy_bytes(policy: Policy) -> bytes:
    """A policy as it is written to its file."""
    return to_json(asdict(policy)).encode() + b"\n"


def read_policy(path: Path) -> Policy:
    """The policy at `path`. Raises BrokenRunError if the file holds something else, and OSError."""
    try:
        return _checked(Policy(**json.loads(path.read_bytes())))
    except (ValueError, TypeError) as error:
        why = "its fields are others" if isinstance(error, TypeError) else error
        raise BrokenRunError(f"{path} does not hold a policy ({why}); remove it to have one chosen again") from error


def _checked(policy: Policy) -> Policy:
    """The policy, if images can be made by it: under another one every row would fail and be given up.

    Raises ValueError."""
    least = {"micro_batch": 1, "decode_chunk": 1, "tile_px": 0, "threads": 1, "stream_buffers": 1}
    for name, at_least in least.items():
        value = getattr(policy, name)
        if type(value) is not int or value < at_least:
            raise ValueError(f"{name} is {value!r}")
    if policy.placement not in PLACEMENTS:
        raise ValueError(f"placement is {policy.placement!r}")
    return policy
