"""What is known beforehand about a run: the paces kept of its model, how long it takes, what it writes."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from batchgen.config.schema import Config
from batchgen.errors import UserError
from batchgen.evening import kept
from batchgen.evening.disk import Room, free_bytes, room
from batchgen.evening.pace import Pace, Paces, pace_of
from batchgen.evening.takes import NOTHING, Crew, Takes, sharing, takes
from batchgen.evening.work import Job, job_of
from batchgen.machine.dtype import resolve_dtype
from batchgen.machine.gpus import Gpu
from batchgen.memory.defaults import threads_of
from batchgen.memory.forecast import foresee_on, room_of
from batchgen.memory.frozen import task_of
from batchgen.memory.measure import Known, base_policy
from batchgen.models.find import ModelFiles, find_model, half_of
from batchgen.plan.store import Plan
from batchgen.policy import Policy

_MOST_SHARDS = 200  # of a plan on disk, where it is enough to know about how much there is


@dataclass(frozen=True, slots=True)
class Model:
    """The files of a model, None where they are not here, and its fingerprint."""

    files: ModelFiles | None
    fingerprint: str


class Outlook:
    """A run that is to come, on devices of one kind.

    `gpus`: those that can do it, of which the first counts; none for the CPU.
    """

    def __init__(self, config: Config, model: Model, gpus: Sequence[Gpu]) -> None:
        self._config, self._model, self._gpus = config, model, gpus
        self._gpu = gpus[0] if gpus else None
        self.device_kind = "cpu" if self._gpu is None else self._gpu.kind or ""
        self.dtype = resolve_dtype(
            config.model.dtype, self._gpu.capability if self._gpu else None, half_of(model.files)
        )
        self._room = room_of(config, gpus) if gpus else None
        self._known: dict[tuple[int, int], tuple[Pace, Policy] | None] = {}

    @classmethod
    def of_plan(cls, plan: Plan, gpus: Sequence[Gpu]) -> "Outlook":
        """The outlook of a planned run; the first of the GPUs can do it. Raises ModelError."""
        return cls(plan.config, Model(find_model(plan.config.model), str(plan.recipe["model"])), gpus)

    @property
    def key(self) -> str:
        """Under what name the paces are kept."""
        return kept.key_of(self._config, self._model.fingerprint, self.device_kind, self.dtype)

    @cached_property
    def paces(self) -> Paces:
        """What is kept of earlier runs and probes."""
        return kept.load(self.key)

    def policy(self, width: int, height: int) -> Policy | None:
        """The policy that a worker would choose; None on a GPU that is not known or cannot do it."""
        config = self._config
        task = task_of(config, width, height)
        if self._gpu is None:
            return base_policy(config, task, self.dtype)
        if self._model.files is None:
            return None
        try:
            foreseen = foresee_on(config, self._gpu, self._model.files, self._model.fingerprint, task, self._room)
        except UserError:
            return None
        return foreseen[0].option.policy if foreseen else None

    def crew(self, workers: int) -> Crew:
        """The workers, and how they share the devices."""
        cores = os.cpu_count() or 1
        threads = threads_of(self._config.memory.policy, cores)
        return Crew(workers, sharing(workers, len(self._gpus), threads, cores))

    def takes(self, shards: Sequence[Sequence[Job]]) -> Takes | None:
        """How long these shards take; None where the pace of a size, or the start, is not known."""
        sizes = {job.size for jobs in shards for job in jobs}
        known = {size: found for size in sizes if (found := self._of(*size)) is not None}
        if not sizes:
            return NOTHING
        if known.keys() != sizes or self.paces.start_s is None:
            return None
        workers = min(self._config.launch.workers or 1, len(shards))
        strict = self._config.determinism == "strict"
        return takes(shards, lambda job: known[job.size], self.crew(workers), self.paces, strict)

    def work(self, plan: Plan, shards: Iterable[int]) -> tuple[float, float] | None:
        """(Seconds of work on these shards of a plan, seconds until it begins); None as for `takes`."""
        found = self.takes([[job_of(batch) for batch in plan.shard(shard)[0].batches] for shard in shards])
        return None if found is None else (found.work_s, found.start_s)

    def room(self, images: Counter[tuple[int, int]], run_dir: Path) -> Room:
        """What so many images of each size take on the disk of the run. Raises OSError."""
        return room(images, self._config.output, self.paces.image_bytes, free_bytes(run_dir))

    def _of(self, width: int, height: int) -> tuple[Pace, Policy] | None:
        if (width, height) not in self._known:
            policy = self.policy(width, height)
            pace = self._pace(width, height, policy) if policy else None
            self._known[width, height] = (pace, policy) if pace and policy else None
        return self._known[width, height]

    def _pace(self, width: int, height: int, policy: Policy) -> Pace | None:
        """What runs showed of this size; else what the memory's probe measured; else a size that is near."""
        task = task_of(self._config, width, height)
        figures = None
        if self._gpu is not None:
            figures = Known(self._config, self._model.fingerprint, self.device_kind, self.dtype).load(task)
        if figures is not None and not self.paces.has(width, height, policy.placement):
            return pace_of(figures, policy, task)
        return self.paces.of(width, height, policy.placement)


def images_of(jobs: Iterable[Job]) -> Counter[tuple[int, int]]:
    """How many images there are of each size in px."""
    found: Counter[tuple[int, int]] = Counter()
    for job in jobs:
        found[job.size] += job.rows
    return found


def left_images(plan: Plan, shards: Iterable[int]) -> Counter[tuple[int, int]]:
    """How many images of each size these shards of a plan hold; for a large plan, by some of them.

    Raises BrokenRunError.
    """
    wanted = sorted(shards)
    every = max(1, -(-len(wanted) // _MOST_SHARDS))
    read = wanted[::every]
    found = images_of(job_of(batch) for shard in read for batch in plan.shard(shard)[0].batches)
    total = sum(plan.sizes[shard].images for shard in wanted)
    counted = found.total() or 1
    return Counter({size: round(count * total / counted) for size, count in found.items()})
