"""A short probe of a job: some of its batches are made in a scratch directory, as a run makes them, and measured.

It goes through the worker itself, so what it measures is what the run will do: the model is loaded, the policy is
chosen (on a GPU by the probe of memory, whose figures are kept too), images are made, encoded and written.
"""

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from batchgen.errors import EXIT_USER, EXIT_WHOLE, BatchgenError, UserError
from batchgen.evening.measured import paces_of
from batchgen.evening.pace import Paces
from batchgen.evening.work import Job, job_of
from batchgen.launch import local
from batchgen.machine.process import StopEvent
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, Sources, load_plan, save_plan
from batchgen.shards.journal import read_journal
from batchgen.types import Batch, Group, Prompt, Reject, Shard

# The steps of the batch that warms up, and of the one that measures how long a step takes.
_WARM_STEPS, _SHORT_STEPS = 3, 6
# A batch with all its steps is made too, for the bytes of real images, if all of them take so long at most.
_WHOLE_S = 60.0
_MOST_S = 300.0  # for a device so slow that not even the short batches end
_MOST_GROUPS = 8


class _Enough(Exception):
    """All is measured that is worth its time."""


def measure(
    shards: Callable[[], Iterable[Shard | Reject]],
    sources: Sources,
    devices: Sequence[str],
    rows: Callable[[int, int], int],
    front_s: float,
    say: Callable[[str], None],
) -> tuple[str, Paces]:
    """The kind of the device, and the paces that the probe found.

    `shards` gives the job's shards, and may be called twice. `rows` says how many rows of a size in px are worth
    trying at once. `front_s`: what a command takes before it plans. Raises UserError where the job cannot run, and
    BatchgenError.
    """
    chosen = _chosen(shards(), rows)
    trials = list(_trials(chosen))
    made = [shard for shard, _ in trials]
    with tempfile.TemporaryDirectory(prefix="batchgen-probe-", ignore_cleanup_errors=True) as scratch:
        began_s = time.time()
        # The job's own shards follow, so that a probe of memory sees how much work there will be; they are never made.
        after = (replace(one, index=len(trials) + one.index) for one in shards() if isinstance(one, Shard))
        plan = _planned(RunDir(Path(scratch) / "run"), sources, chain(made, after))
        say(f"measuring {sum(len(batch.prompts) for batch, _ in chosen)} images of the job on {_where(devices)}")
        launched_s = time.time()
        watch = _Watch(plan, made, launched_s)
        code = EXIT_WHOLE
        with suppress(_Enough):
            crew = local.Crew(plan, local.Share.whole(plan, list(devices)[:1]), say)
            code = local.launch(crew, StopEvent(), watch.look, say)
        whole = {shard.index for shard, steps in trials if shard.batches[0].prompts[0].steps == steps}
        kind, paces = paces_of(plan, launched_s, front_s + launched_s - began_s, 1.0, None, watch.wanted, whole)
    if code == EXIT_USER:
        raise UserError("the job cannot run, so nothing was measured: see above")
    if not paces.sizes and code != EXIT_WHOLE:
        raise BatchgenError("the probe ended without a figure: see above")
    return kind, paces


def _planned(run: RunDir, sources: Sources, shards: Iterable[Shard]) -> Plan:
    """A run of these shards by one worker that is not started again."""
    launch = replace(sources.config.launch, workers=1, restarts=0)
    config = replace(sources.config, run_dir=str(run.root), launch=launch)
    save_plan(run, run.plan, "run", 0, uuid.uuid4().hex, replace(sources, config=config), shards)
    run.create_directories()
    return load_plan(run)


def _where(devices: Sequence[str]) -> str:
    return f"GPU {devices[0]}" if devices else "the CPU"


def _chosen(shards: Iterable[Shard | Reject], rows: Callable[[int, int], int]) -> list[tuple[Batch, Job]]:
    """A batch of each group with the most work, its prompts taken evenly from all of the group's."""
    kept: dict[Group, list[Prompt]] = {}
    seen: dict[Group, int] = {}
    chance = random.Random(0)
    for batch in (batch for shard in shards if isinstance(shard, Shard) for batch in shard.batches):
        for prompt in batch.prompts:
            group, most = prompt.group, rows(prompt.width, prompt.height)
            seen[group] = place = seen.get(group, 0) + 1
            sample = kept.setdefault(group, [])
            if len(sample) < most:
                sample.append(prompt)
            elif (at := chance.randrange(place)) < most:
                sample[at] = prompt
    work = {group: _job(group, seen[group]).pixel_steps for group in kept}
    largest = sorted(kept, key=lambda group: -work[group])[:_MOST_GROUPS]
    batches = [Batch(0, tuple(kept[group])) for group in largest]
    return [(batch, job_of(batch)) for batch in batches]


def _job(group: Group, rows: int) -> Job:
    width, height, steps, guided, _ = group
    return Job(width, height, steps, guided, rows)


def _trials(chosen: Sequence[tuple[Batch, Job]]) -> Iterator[tuple[Shard, int]]:
    """A shard for each batch that is made, and the steps of its job.

    Of every group there are a warm one and a short one; then come the whole ones.
    """
    batches = [(_with_steps(batch, most), job.steps) for batch, job in chosen for most in (_WARM_STEPS, _SHORT_STEPS)]
    batches += [(batch, job.steps) for batch, job in chosen if job.steps > _SHORT_STEPS]
    for index, (batch, steps) in enumerate(batches):
        prompts = tuple(replace(prompt, key=f"probe-{index}-{row}", copy=0) for row, prompt in enumerate(batch.prompts))
        yield Shard(index, (Batch(0, prompts),)), steps


def _with_steps(batch: Batch, steps: int) -> Batch:
    prompts = tuple(replace(prompt, steps=min(prompt.steps, steps)) for prompt in batch.prompts)
    return Batch(0, prompts)


class _Watch:
    """Looks at the probe's run, and ends it by _Enough when what is left takes too long or nothing is left."""

    def __init__(self, plan: Plan, trials: Sequence[Shard], launched_s: float) -> None:
        self._plan, self._trials, self._launched_s = plan, trials, launched_s
        self._short = {shard.index for shard in trials if shard.batches[0].prompts[0].steps <= _SHORT_STEPS}
        self.wanted = set(self._short)  # what is worth to be made
        self._is_settled = False

    def look(self) -> None:
        """Raise _Enough if there is nothing more to wait for."""
        committed = self._plan.run.committed()
        if self._short <= committed:
            self.wanted |= set() if self._is_settled else self._affordable()
            self._is_settled = True
            if self.wanted <= committed:
                raise _Enough
        if time.time() - self._launched_s > _MOST_S and committed:
            raise _Enough

    def _affordable(self) -> set[int]:
        """The whole batches that do not take too long, by the seconds of the short ones."""
        step_s: dict[tuple[int, int, bool], float] = {}
        for shard in sorted(self._short):
            journal = read_journal(self._plan.run.memory_log(shard))
            if journal is not None and journal.records:
                batch, seconds = self._trials[shard].batches[0], journal.records[-1]["seconds"]
                job = job_of(batch)
                step_s[job.width, job.height, job.guided] = seconds / job.steps
        found, left_s = set(), _WHOLE_S
        for whole in (one for one in self._trials if one.index not in self._short):
            job = job_of(whole.batches[0])
            left_s -= job.steps * step_s.get((job.width, job.height, job.guided), _WHOLE_S)
            if left_s >= 0:
                found.add(whole.index)
        return found
