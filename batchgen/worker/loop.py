"""A worker's loop: one shard after the other, on one device.

Which shard comes next says `hand_out`. While others work on all that is left, a worker waits, and looks less often the
longer it has waited.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from batchgen.engine import Engine
from batchgen.errors import (
    EXIT_INTERRUPTED,
    EXIT_RENEW,
    EXIT_WHOLE,
    ModelError,
)
from batchgen.events import EventLog
from batchgen.machine.gpus import check_reached
from batchgen.machine.growth import wants_renewal
from batchgen.machine.meters import try_cuda
from batchgen.machine.process import element_of
from batchgen.memory.frozen import Policies
from batchgen.models.find import locate
from batchgen.models.fingerprint import fingerprint_model
from batchgen.models.lora import find_planned
from batchgen.models.staging import stage
from batchgen.plan.store import Plan
from batchgen.shards.attempt import Attempt
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.samples import SampleMaker
from batchgen.shards.settled import is_settled
from batchgen.speed.levers import Levers
from batchgen.types import Shard
from batchgen.units import size_bytes
from batchgen.worker.hand_out import HandOut
from batchgen.worker.shard import ShardMaker
from batchgen.worker.spread import await_turn, start_delay_s
from batchgen.worker.standby import import_engine

_IDLE_S = 0.5
_LONGER = 1.5  # each time
_MOST_IDLE = 10  # times _IDLE_S


class Worker:
    """Takes shards until all are done, or until it is told to stop."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        rank: int,
        world: int,
        load_engine: Callable[[Plan], Engine],
        stop: threading.Event,
    ) -> None:
        self.name = name
        self._plan = plan
        self._run = plan.run
        self._load_engine = load_engine
        self._stop = stop
        self._place = rank, world
        self._watch = Watch(plan.config.launch.lease_timeout_s)
        self._hand_out = HandOut(plan, name, self._place, self._watch)
        self._units_ahead = 2 * max((size.batches for size in plan.sizes), default=0)
        self._maker: ShardMaker | None = None
        self._slowest_step_s: float | None = None
        self._model_facts: dict[str, Any] = {}  # where it is loaded from
        self.log = EventLog(self._run.worker_log(name))

    def work(self) -> int:
        """Make shards; return the exit code. Raises BatchgenError where it cannot go on."""
        who = {"host": socket.gethostname(), "element": element_of(os.environ)}
        self.log.add("start", rank=self._place[0], world=self._place[1], pid=os.getpid(), **who)
        idle_s = _IDLE_S
        while not self._hand_out.is_over():
            if self._stop.is_set():
                self.log.add("drain")
                return EXIT_INTERRUPTED
            shard = self._hand_out.next()
            if shard is not None:
                idle_s = _IDLE_S
                if self._take(shard) and self._grows() and not self._hand_out.is_over():
                    return EXIT_RENEW
            elif self._hand_out.is_over():
                break
            elif self._plan.config.launch.wait_for_others:
                self._stop.wait(idle_s)  # others work on the rest: take over if one of them dies
                idle_s = min(_LONGER * idle_s, _MOST_IDLE * _IDLE_S)
            else:
                self.log.add("left", open_shards=len(self._hand_out.open_shards()))
                return EXIT_WHOLE
        self.log.add("end")
        return EXIT_WHOLE

    def _take(self, index: int) -> bool:
        """Make the shard unless somebody took it while the model was loaded; return whether we held its lease."""
        maker = self._shard_maker()
        shard, digest = self._plan.shard(index)
        maker.ready(shard)
        lease = Lease.take(self._run, index, self.name, self._watch, self._slowest_step_s)
        if lease is None:
            self._hand_out.lost(index)
            return False
        self._hand_out.took(index)
        try:
            if is_settled(self._run, index) or self._work_on(maker, shard, digest, lease):
                self._hand_out.settle(index)
        finally:
            lease.release()
            self._slowest_step_s = lease.step_s
        return True

    def _work_on(self, maker: ShardMaker, shard: Shard, digest: str, lease: Lease) -> bool:
        """Make what the shard lacks and commit it; return whether it is committed, by this worker or another one."""
        attempt = Attempt(self._run, shard, self._plan.run_id, digest, self.name)
        try:
            attempt.resume()
            self.log.add("shard", shard=shard.index, attempt=attempt.files.attempt, rows_resumed=attempt.rows)
            crashes = self._hand_out.crashes().get(shard.index, ())
            if not maker.generate(shard, attempt, lease, self._plan.tried_again(shard.index), crashes):
                return False
            won = attempt.commit()
            self.log.add("commit" if won else "commit_lost", shard=shard.index, attempt=attempt.files.attempt)
            return True
        finally:
            attempt.close()

    def _grows(self) -> bool:
        """Log how memory grows; return whether a new process should take over before memory runs short."""
        if self._maker is None:
            return False
        host, device = self._maker.host_growth, self._maker.device_growth
        slopes = {"host_bytes_a_unit": round(host.slope_bytes()), "device_bytes_a_unit": round(device.slope_bytes())}
        renew = wants_renewal(host, psutil.virtual_memory().available, self._units_ahead)
        self.log.add("renew" if renew else "growth", **slopes)
        return renew

    def _load(self) -> Engine:
        """The engine. Tries `launch.restarts` times more where a file could not be read, which may be a hiccup."""
        for tried in range(self._plan.config.launch.restarts):
            try:
                return self._load_engine(self._staged())
            except (ModelError, OSError) as error:
                if not isinstance(error, OSError) and not isinstance(error.__cause__, OSError):
                    raise
                self.log.add("load_failed", error=str(error), cause=str(error.__cause__))
            self._stop.wait(2**tried)  # s
        return self._load_engine(self._staged())

    def _staged(self) -> Plan:
        """The plan, with the path of the model's copy on this machine where there is one. Raises StoppedError."""
        staged = stage(self._plan, self.log, self._stop)
        self._model_facts = staged.facts
        return staged.plan

    def _shard_maker(self) -> ShardMaker:
        if self._maker is None:
            spread_s = self._plan.config.launch.spread_s
            is_late = bool(self._run.shard_leases())
            await_turn(start_delay_s(self._place, spread_s, is_late), self.log, self._stop)
            started = time.monotonic()
            engine = self._load()
            seconds = round(time.monotonic() - started, 2)
            self.log.add("loaded", device=engine.device_kind, seconds=seconds, **self._model_facts)
            levers = Levers(self._plan, engine, self.log)
            self._maker = ShardMaker(
                engine,
                SampleMaker.of(self._plan, engine.scheduler_name, engine.device_kind),
                Policies(self._plan, engine, self.log, self.name, self._watch, self._stop, levers.of),
                {"worker": self.name, "host": socket.gethostname(), "device": engine.device_kind},
                self.log,
                self._stop,
                levers.warm_up,
            )
        return self._maker


def load_engine(plan: Plan) -> Engine:
    """The engine for the plan's model.

    Raises ModelError, also where the model or a LoRA is not the one planned with, and DeviceError where a GPU that this
    process was given cannot be used.
    """
    model = locate(plan.config.model)
    planned = str(plan.recipe["model"])
    if fingerprint_model(model, planned) != planned:
        raise ModelError(
            f"the model in {model.folder} is not the one that this run was planned with: restore the original model, "
            "or start a new run"
        )
    loras = find_planned(plan.loras, plan.config.model.lora)
    import_engine()
    from batchgen.pipeline.engine import DiffusersEngine
    from batchgen.pipeline.strict import pin_kernels

    if plan.config.determinism == "strict":
        pin_kernels()
    check_reached(*try_cuda())
    max_vram = plan.config.memory.max_vram
    cap_bytes = None if max_vram is None else size_bytes("memory.max_vram", max_vram)
    return DiffusersEngine(model, plan.config.job.scheduler, plan.config.model.dtype, cap_bytes, loras)
