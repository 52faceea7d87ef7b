"""Making the images of a shard: encode, denoise in micro-batches, decode in chunks, hand over to be written.

The device never waits for PNG or disk: while a unit is encoded and written, the next one is denoised. A unit is
a batch, or for slow models the micro-batches that hold a minute's work. A unit is decoded only when the one
before it is on the disk, so that a crash costs the finished images of one unit at most.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

from batchgen.events import EventLog, now
from batchgen.fitting import Engine, Fitting, Latent
from batchgen.leases import Lease
from batchgen.memory.growth import Growth
from batchgen.memory.meters import Stopwatch, read_meters, reset_peaks
from batchgen.memory.policy import spans
from batchgen.policies import Policies
from batchgen.samples import Maker
from batchgen.shards import Attempt
from batchgen.types import Batch, Policy, Sample, Shard

UNIT_S = 60.0
_ENCODERS = 4


class UnitWriter:
    """Encodes images and appends units to the attempt, in threads of its own. One unit at a time."""

    def __init__(self, beat: Callable[[], None]) -> None:
        """`beat` is called, from its threads, whenever it got on."""
        self._beat = beat
        self._encoders = ThreadPoolExecutor(min(_ENCODERS, os.cpu_count() or 1), "encode")
        self._appender = ThreadPoolExecutor(1, "append")
        self._pending: Future[None] | None = None

    def encode(self, make: Callable[..., Sample], *arguments: Any) -> Future[Sample]:
        """Begin to make a sample."""
        return self._encoders.submit(make, *arguments)

    def append(self, attempt: Attempt, samples: list[Future[Sample]], record: dict[str, Any]) -> None:
        """Begin to append a unit. The one before must be in: call `wait` first."""
        self._pending = self._appender.submit(_append, attempt, samples, record, self._beat)

    def wait(self) -> None:
        """Until the unit is on the disk. Raises what went wrong there."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._appender.shutdown()
        self._encoders.shutdown()


def _append(attempt: Attempt, futures: list[Future[Sample]], record: dict[str, Any], beat: Callable[[], None]) -> None:
    started = time.perf_counter()
    samples = []
    for future in futures:
        samples.append(future.result())
        beat()

    def finished() -> dict[str, Any]:
        write_s = round(time.perf_counter() - started, 3)
        failed = sum(sample.status != "ok" for sample in samples)
        stages = record["stage_seconds"] | {"write": write_s}
        return record | {"stage_seconds": stages, "status": "failed" if failed else "ok", "failed": failed}

    attempt.append(samples, finished)
    beat()


class ShardMaker:
    """Makes one shard: goes on after what the attempt holds already."""

    def __init__(
        self,
        engine: Engine,
        maker: Maker,
        policies: Policies,
        worker: dict[str, str],
        log: EventLog,
        stop: threading.Event,
    ) -> None:
        self._engine = engine
        self._fitting = Fitting(engine, policies, log)
        self._policies = policies
        self.host_growth, self.device_growth = Growth(), Growth()
        self._maker = maker
        self._worker = worker
        self._log = log
        self._stop = stop

    def ready(self, shard: Shard) -> None:
        """Load, probe and set up what the shard needs: all that takes long before its first step."""
        for batch in shard.batches:
            self._policies.of(*batch.size)
        self._fitting.begin(shard.batches[0].size)

    def make(self, shard: Shard, attempt: Attempt, lease: Lease, tried_again: Collection[str] = ()) -> bool:
        """Make what is missing. False if it was stopped before the end; what is finished is on the disk then.

        Keys of `tried_again` are another shard's by now: they are not written here too.
        """
        self._engine.beat = lease.beat
        writer = UnitWriter(lease.beat)
        self._maker = replace(self._maker, left_out=frozenset(tried_again))
        try:
            done = attempt.rows
            for batch in shard.batches:
                first_row, done = min(done, len(batch.prompts)), max(0, done - len(batch.prompts))
                if first_row < len(batch.prompts) and not self._batch(shard, batch, first_row, attempt, lease, writer):
                    return False
            writer.wait()
            return True
        finally:
            writer.close()

    def _batch(
        self, shard: Shard, batch: Batch, first_row: int, attempt: Attempt, lease: Lease, writer: UnitWriter
    ) -> bool:
        ooms = self._fitting.ooms
        policy = self._fitting.begin(batch.size)
        unit = _Unit(shard.index, batch.index, first_row, ooms)
        with unit.watches["encode"]:
            texts = self._fitting.encode(batch.size, batch.prompts)
        before = sum(len(one.prompts) for one in shard.batches[: batch.index])
        for span in spans(len(batch.prompts), policy.micro_batch):
            if span.stop <= first_row:
                continue
            if self._stop.is_set():
                break
            with unit.watches["denoise"]:
                latents = self._fitting.denoise(batch.size, texts, [batch.prompts[row] for row in span])
            unit.latents += latents[max(0, first_row - span.start) :]
            lease.beat(before + span.stop)
            # A unit ends where a decode chunk does, so that its end never changes which images decode together.
            last = span.stop == len(batch.prompts)
            stop_row = span.stop if last else span.stop - span.stop % policy.decode_chunk
            if last or (stop_row > unit.first_row and (unit.age_s() >= UNIT_S or self._stop.is_set())):
                count = stop_row - unit.first_row
                unit.latents, rest = unit.latents[:count], unit.latents[count:]
                self._finish(unit, batch, texts, attempt, writer)
                unit = _Unit(shard.index, batch.index, stop_row, self._fitting.ooms, rest)
        if unit.first_row == len(batch.prompts):
            return True
        writer.wait()
        return False

    def _finish(self, unit: "_Unit", batch: Batch, texts: Any, attempt: Attempt, writer: UnitWriter) -> None:
        writer.wait()
        prompts = batch.prompts[unit.first_row : unit.first_row + len(unit.latents)]
        futures = []
        with unit.watches["decode"]:
            for prompt, (image, policy) in zip(prompts, self._fitting.decode(batch.size, unit.latents), strict=True):
                unit.retries += image.retried_in_fp32
                futures.append(writer.encode(self._maker.make, prompt, texts[prompt.prompt].cut, image, policy))
        self._log.add("made", shard=unit.shard, batch=unit.batch, first_row=unit.first_row, images=len(prompts))
        writer.append(attempt, futures, self._record(unit, policy, attempt, batch.size, len(prompts)))

    def _record(
        self, unit: "_Unit", policy: Policy, attempt: Attempt, size: tuple[int, int], images: int
    ) -> dict[str, Any]:
        meters = read_meters()
        self.host_growth.add(meters.host_rss_bytes)
        self.device_growth.add(meters.peak_reserved_bytes)
        return {
            "shard": unit.shard,
            "batch": unit.batch,
            "first_row": unit.first_row,
            "started_at": unit.started_at,
            **self._worker,
            "attempt": attempt.files.attempt,
            "images": images,
            "seconds": round(unit.age_s(), 3),
            "stage_seconds": {name: round(watch.seconds(), 3) for name, watch in unit.watches.items()},
            "micro_batch": policy.micro_batch,
            "decode_chunk": policy.decode_chunk,
            "policy": asdict(policy),
            "predicted_peak_bytes": self._policies.predicted_bytes(policy, *size),
            **asdict(meters),
            "ooms": self._fitting.ooms - unit.ooms_before,
            "retries": unit.retries,
        }


class _Unit:
    """What is under way: rows of one batch from `first_row` on, denoised and not yet decoded."""

    def __init__(
        self, shard: int, batch: int, first_row: int, ooms_before: int, latents: Sequence[Latent] = ()
    ) -> None:
        self.shard = shard
        self.batch = batch
        self.first_row = first_row
        self.ooms_before = ooms_before
        self.latents = list(latents)
        self.retries = 0
        self.started_at = now()
        self.watches = {name: Stopwatch() for name in ("encode", "denoise", "decode")}
        self._started = time.perf_counter()
        reset_peaks()

    def age_s(self) -> float:
        return time.perf_counter() - self._started
