"""The levers of speed for each size: by hand, or by measuring what they gain and cost at the job's real shapes."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from batchgen.engine import Engine
from batchgen.errors import in_one_line
from batchgen.events import EventLog
from batchgen.files import to_json
from batchgen.machine.meters import Stopwatch
from batchgen.memory.choose import fits
from batchgen.memory.costs import Task, batch_s
from batchgen.memory.figures import Figures
from batchgen.memory.frozen import task_of
from batchgen.memory.measure import facts_of
from batchgen.memory.probe import prompts_of
from batchgen.models.find import locate
from batchgen.placements import STEADY, UNHOOKED
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.speed import kept
from batchgen.speed.worth import Measured, Timed, is_worth_trying, pays

# Raise this when what is compiled takes other time than before, so that it is measured again.
_WAY_OF_COMPILING = 3
_STEPS = 3  # how many measure a way of computing
_BEAT_S = 5.0


class Levers:
    """Gives policies their levers, and warms the engine up for those that are compiled."""

    def __init__(self, plan: Plan, engine: Engine, log: EventLog) -> None:
        self._plan, self._engine, self._log = plan, engine, log
        self._warm: set[tuple[int, int, Policy]] = set()

    def of(self, task: Task, policy: Policy, figures: Figures) -> Policy:
        """The policy with the levers that pay for this job. `figures`: those that it was chosen by."""
        if self._plan.config.speed.compile != "auto" or not self._may_compile(policy):
            return policy
        compiled = replace(policy, compile="whole")
        key, batches, workers = self._key(task, compiled), self._plan.images / task.rows, self._workers
        is_long = is_worth_trying(batch_s(figures, policy, task), batches, workers)
        if (found := kept.load(key)) is not None:
            start_s = found.start_s(kept.code_dir().is_dir())
        else:
            if not is_long:
                self._tell(task, policy, "the job is too short to try compiling")
                return policy
            if (found := self._measure(task, policy, compiled)) is None:
                return policy
            kept.save(key, found)
            start_s = found.compile_s
        found = self._with_graphs(found, key, task, policy, figures, is_long)
        how, best = found.best(task, policy)
        chosen = replace(policy, compile=how) if pays(found, task, policy, batches / workers, start_s) else policy
        before, after = (way.batch_s(task, policy) for way in (found.eager, best))
        why = f"a batch takes {before:.2f} s eagerly and {after:.2f} s compiled, which {start_s:.0f} s are spent on"
        self._tell(task, chosen, why)
        return chosen

    def warm_up(self, width: int, height: int, policy: Policy) -> None:
        """Compile what the policy of this size in pixels compiles, unless that is done."""
        if policy.compile == "eager" or (width, height, policy) in self._warm:
            return
        task = task_of(self._plan.config, width, height)
        self._log.add("compiling", width=width, height=height)
        seconds = self._warm_up(task, policy)
        self._log.add("compiled", width=width, height=height, seconds=round(seconds, 2))
        key = self._key(task, policy)
        if (known := kept.load(key)) is not None and (known.again_s is None or seconds < known.again_s):
            kept.save(key, replace(known, again_s=seconds))

    @property
    def _workers(self) -> int:
        return min(self._plan.config.launch.workers or 1, self._plan.shard_count)

    def _may_compile(self, policy: Policy) -> bool:
        speed = self._plan.config.speed
        convolutional = locate(self._plan.config.model).family.convolutional
        plain = not speed.traced and speed.attention != "xformers"
        return self._engine.gauge is not None and policy.placement in UNHOOKED and convolutional and plain

    def _measure(self, task: Task, policy: Policy, compiled: Policy) -> Measured | None:
        """Time both ways. None where it cannot be compiled here, or is refused memory."""
        self._log.add("compiling", width=task.width, height=task.height)
        with _beating(self._engine.beat):
            try:
                used, why = self._engine.prepare(compiled)
                if used != compiled:
                    self._tell(task, policy, f"it cannot be compiled: {why}")
                    return None
                self._engine.prepare(policy)
                eager = self._timed(task, policy)
                seconds = self._warm_up(task, compiled)
                return Measured(eager, self._timed(task, compiled), seconds)
            except Exception as error:  # compilers fail in many ways, and without them all goes on eagerly
                why = in_one_line(error)
            self._engine.recover()
        self._tell(task, policy, f"compiling failed: {why}")
        return None

    def _with_graphs(
        self, found: Measured, key: str, task: Task, policy: Policy, figures: Figures, is_long: bool
    ) -> Measured:
        """What was found, without graphs if this job cannot use them; a long job measures them if none did before.

        What was found may be another job's, for which there was more memory, or less.
        """
        graphs, gauge = replace(policy, compile="graphs"), self._engine.gauge
        if gauge is None or policy.placement not in STEADY:
            return replace(found, graphed=None)
        if not fits(figures, graphs, task, max(gauge.free_bytes(), gauge.whole_bytes())):
            return replace(found, graphed=None)
        if found.graphed is None and is_long:
            found = replace(found, graphed=self._graphed(task, graphs, found.compiled))
            kept.save(key, found)
        return found

    def _graphed(self, task: Task, graphs: Policy, compiled: Timed) -> Timed | None:
        """Time graphs. Where they cannot be recorded, they take as long as what is compiled; None after an error."""
        found: Timed | None = None
        with _beating(self._engine.beat):
            try:
                self._warm_up(task, graphs)
                timed = self._timed(task, graphs)
                used, why = self._engine.prepare(graphs)  # if a recording failed, it says so now
                found = timed if used == graphs else compiled
            except Exception as error:  # what is compiled is used without them
                why = in_one_line(error)
            if why is not None:
                self._engine.recover()
        if why is not None:
            self._tell(task, graphs.without_graphs, f"CUDA graphs failed: {why}")
        return found

    def _warm_up(self, task: Task, policy: Policy) -> float:
        began_s = time.monotonic()
        self._engine.prepare(policy)
        self._engine.warm_up(prompts_of(task, policy.micro_batch, steps=1), policy)
        self._warm.add((task.width, task.height, policy))
        return time.monotonic() - began_s

    def _timed(self, task: Task, policy: Policy) -> Timed:
        self._engine.prepare(policy)
        prompts = prompts_of(task, policy.micro_batch, _STEPS)
        texts = self._engine.encode(prompts)
        latents = self._engine.denoise(texts, prompts, policy)  # once before, so that kernels are loaded
        with self._engine.passes() as watches:
            self._engine.denoise(texts, prompts, policy)
        step_s = sum(watch.seconds() for watch in watches) / _STEPS
        for _ in range(2):
            watch = Stopwatch()
            with watch:
                self._engine.decode(latents[: policy.decode_chunk], policy)
        return Timed(step_s, watch.seconds())

    def _tell(self, task: Task, policy: Policy, why: str) -> None:
        self._log.add("levers", width=task.width, height=task.height, compile=policy.compile, reason=why)

    def _key(self, task: Task, policy: Policy) -> str:
        config, engine = self._plan.config, self._engine
        facts = facts_of(config, str(self._plan.recipe["model"]), engine.device_kind, engine.dtype)
        facts += [_WAY_OF_COMPILING, task.width, task.height, task.guided]
        facts.append(asdict(policy.without_graphs))  # what is measured with graphs and without is one record
        return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


@contextmanager
def _beating(beat: Callable[[], None]) -> Iterator[None]:
    """A context in which a thread states every few seconds that the work goes on: a compiler doesn't."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(_BEAT_S):
            beat()

    thread = threading.Thread(target=go_on, daemon=True, name="beat")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
