"""A worker's loop: one shard after the other, on one device.

It begins with a shard of its own, chosen by its rank among the shards that are not done, and goes on with the first
shard that nobody has made or works on. No shard belongs to a rank, and the small ones at the plan's end come last for
every worker.
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
from batchgen.models.staging import stage
from batchgen.plan.store import Plan
from batchgen.shards.attempt import Attempt, is_settled
from batchgen.shards.failures import read_crashes, suspects_last
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.samples import SampleMaker
from batchgen.types import Shard
from batchgen.units import size_bytes
from batchgen.worker.shard import ShardMaker
from batchgen.worker.spread import await_turn, start_delay_s

_IDLE_S = 0.5


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
        self._rank = rank
        self._world = world
        self._load_engine = load_engine
        self._stop = stop
        self._watch = Watch(plan.config.launch.lease_timeout_s)
        self._maker: ShardMaker | None = None
        self._done: set[int] = set()
        self._began = False
        self._slowest_step_s: float | None = None
        self._model_facts: dict[str, Any] = {}  # where it is loaded from
        self.log = EventLog(self._run.worker_log(name))

    def work(self) -> int:
        """Make shards; return the exit code. Raises BatchgenError where it cannot go on."""
        who = {"host": socket.gethostname(), "element": element_of(os.environ)}
        self.log.add("start", rank=self._rank, world=self._world, pid=os.getpid(), **who)
        while open_shards := self._open():
            if self._stop.is_set():
                self.log.add("drain")
                return EXIT_INTERRUPTED
            shard = self._next(open_shards)
            if shard is not None:
                if self._take(shard) and self._grows() and self._open():
                    return EXIT_RENEW
            elif self._plan.config.launch.wait_for_others:
                self._stop.wait(_IDLE_S)  # others work on the rest: take over if one of them dies
            else:
                self.log.add("left", open_shards=len(open_shards))
                return EXIT_WHOLE
        self.log.add("end")
        return EXIT_WHOLE

    def _open(self) -> list[int]:
        """The shards that are not done, in the order of the plan."""
        planned = range(self._plan.shard_count)
        committed = self._run.committed() - self._done
        self._done |= {shard for shard in sorted(committed) if shard in planned and is_settled(self._run, shard)}
        return [shard for shard in planned if shard not in self._done]

    def _next(self, open_shards: list[int]) -> int | None:
        """The shard to try: at first one of its own, so that workers that begin together do not all want the same.

        None while others work on all open shards.
        """
        mine = [] if self._began else [open_shards[self._rank % len(open_shards)]]
        order = suspects_last(read_crashes(self._run, self._plan.run_id), mine + open_shards)
        return next((shard for shard in order if not self._watch.is_live(self._run.lease(shard))), None)

    def _take(self, index: int) -> bool:
        """Make the shard unless somebody took it while the model was loaded; return whether we held its lease."""
        maker = self._shard_maker()
        shard, digest = self._plan.shard(index)
        maker.ready(shard)
        self._began = True
        lease = Lease.take(self._run, index, self.name, self._watch, self._slowest_step_s)
        if lease is None:
            return False
        try:
            if not is_settled(self._run, index):
                self._work_on(maker, shard, digest, lease)
        finally:
            lease.release()
            self._slowest_step_s = lease.step_s
        return True

    def _work_on(self, maker: ShardMaker, shard: Shard, digest: str, lease: Lease) -> None:
        attempt = Attempt(self._run, shard, self._plan.run_id, digest, self.name)
        try:
            attempt.resume()
            self.log.add("shard", shard=shard.index, attempt=attempt.files.attempt, rows_resumed=attempt.rows)
            crashes = read_crashes(self._run, self._plan.run_id).get(shard.index, ())
            if maker.generate(shard, attempt, lease, self._plan.tried_again(shard.index), crashes):
                won = attempt.commit()
                self.log.add("commit" if won else "commit_lost", shard=shard.index, attempt=attempt.files.attempt)
        finally:
            attempt.close()

    def _grows(self) -> bool:
        """Log how memory grows; return whether a new process should take over before memory runs short."""
        if self._maker is None:
            return False
        host, device = self._maker.host_growth, self._maker.device_growth
        slopes = {"host_bytes_a_unit": round(host.slope_bytes()), "device_bytes_a_unit": round(device.slope_bytes())}
        units_ahead = 2 * max(size.batches for size in self._plan.sizes)
        renew = wants_renewal(host, psutil.virtual_memory().available, units_ahead)
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
            await_turn(start_delay_s(self._rank, self._world, spread_s), self.log, self._stop)
            started = time.monotonic()
            engine = self._load()
            seconds = round(time.monotonic() - started, 2)
            self.log.add("loaded", device=engine.device_kind, seconds=seconds, **self._model_facts)
            self._maker = ShardMaker(
                engine,
                SampleMaker.of(self._plan, engine.scheduler_name, engine.device_kind),
                Policies(self._plan, engine, self.log, self.name, self._watch, self._stop),
                {"worker": self.name, "host": socket.gethostname(), "device": engine.device_kind},
                self.log,
                self._stop,
            )
        return self._maker


def load_engine(plan: Plan) -> Engine:
    """The engine for the plan's model.

    Raises ModelError, also where the model is not the one planned with, and DeviceError where a GPU that this process
    was given cannot be used.
    """
    model = locate(plan.config.model)
    planned = str(plan.recipe["model"])
    if fingerprint_model(model, planned) != planned:
        raise ModelError(
            f"the model in {model.folder} is not the one that this run was planned with: restore the original model, "
            "or start a new run"
        )
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # else fragments take half as much again
    from batchgen.pipeline.engine import DiffusersEngine
    from batchgen.pipeline.strict import pin_kernels

    if plan.config.determinism == "strict":
        pin_kernels()
    check_reached(*try_cuda())
    max_vram = plan.config.memory.max_vram
    cap_bytes = None if max_vram is None else size_bytes("memory.max_vram", max_vram)
    return DiffusersEngine(model, plan.config.job.scheduler, plan.config.model.dtype, cap_bytes)
