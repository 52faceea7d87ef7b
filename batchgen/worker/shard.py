"""Making the images of a shard: encode, denoise in micro-batches, decode in chunks, hand over to be written.

The device never waits for image files or the disk: while a unit is encoded and written, the next one is denoised. A
unit is a batch, or for slow models the micro-batches that hold a minute's work. A unit is decoded only when the one
before it is on the disk, so a crash costs at most the finished images of one unit.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchgen.engine import Engine, Latent
from batchgen.events import EventLog, now
from batchgen.machine.growth import Growth
from batchgen.machine.meters import Stopwatch, read_meters, reset_peaks
from batchgen.memory.frozen import Policies
from batchgen.padding import spans
from batchgen.policy import Policy
from batchgen.shards.attempt import Attempt
from batchgen.shards.failures import Crash, RowsAt, Trial, trials
from batchgen.shards.leases import Lease
from batchgen.shards.memory_log import UnitRecord, WorkerRecord, written
from batchgen.shards.samples import SampleMaker, cuts_of
from batchgen.types import Batch, Sample, Shard
from batchgen.worker.out_of_memory import Fitting

UNIT_S = 60.0
_ENCODERS = 8


class UnitWriter:
    """Encodes images and appends units to the attempt, in its own threads, one unit at a time."""

    def __init__(self, beat: Callable[[], None], log: EventLog) -> None:
        """`beat` is called from these threads after every step; images that failed are noted in `log`."""
        self._beat = beat
        self._log = log
        self._encoders = ThreadPoolExecutor(min(_ENCODERS, os.cpu_count() or 1), "encode")
        self._appender = ThreadPoolExecutor(1, "append")
        self._pending: Future[None] | None = None

    def encode(self, make: Callable[..., Sample], *arguments: Any) -> Future[Sample]:
        """Begin to make a sample."""
        return self._encoders.submit(make, *arguments)

    def append(self, attempt: Attempt, samples: list[Future[Sample]], record: UnitRecord) -> None:
        """Begin to append a unit. The one before must be on the disk: call `wait` first."""
        self._pending = self._appender.submit(self._append, attempt, samples, record)

    def wait(self) -> None:
        """Wait until the unit is on the disk. Raises the error if that failed."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._appender.shutdown()
        self._encoders.shutdown()

    def _append(self, attempt: Attempt, futures: list[Future[Sample]], record: UnitRecord) -> None:
        started = time.perf_counter()
        samples = []
        for future in futures:
            samples.append(future.result())
            self._beat()
        attempt.append(samples, lambda: written(record, time.perf_counter() - started, samples))
        if bad := [sample for sample in samples if sample.status != "ok"]:
            self._log.add("not_ok", images=len(bad), key=bad[0].key, status=bad[0].status, reason=bad[0].reason)
        self._beat()


class ShardMaker:
    """Makes one shard after the other, each from where its attempt ends."""

    def __init__(
        self,
        engine: Engine,
        maker: SampleMaker,
        policies: Policies,
        worker: WorkerRecord,
        log: EventLog,
        stop: threading.Event,
        warm_up: Callable[[int, int, Policy], None] = lambda width_px, height_px, policy: None,
    ) -> None:
        """`warm_up` compiles what the policy of images of that size compiles."""
        self._warm_up = warm_up
        self._engine = engine
        self._fitting = Fitting(engine, policies, log, policies.strict_rows)
        self._policies = policies
        self.host_growth, self.device_growth = Growth(), Growth()
        self._maker = maker
        self._worker = worker
        self._log = log
        self._stop = stop

    def ready(self, shard: Shard) -> None:
        """Load, probe and set up what the shard needs: everything that takes long before its first step."""
        for size in dict.fromkeys(batch.size for batch in shard.batches):
            if self._policies.of(*size).compile != "eager":
                self._fitting.warm_up(size, self._warm_up)
        self._fitting.begin(shard.batches[0].size)

    def generate(
        self,
        shard: Shard,
        attempt: Attempt,
        lease: Lease,
        tried_again: Collection[str] = (),
        crashes: Collection[Crash] = (),
    ) -> bool:
        """Make the rows that the attempt lacks. False if it was stopped before the end; finished units are on the disk.

        `tried_again`: keys that belong to another shard by now and are not written here. `crashes`: of this shard.
        """
        self._engine.beat = lease.beat
        writer = UnitWriter(lease.beat, self._log)
        at = RowsAt(attempt.files.at, attempt.header)
        self._maker = replace(self._maker, left_out=frozenset(tried_again))
        try:
            for batch, pieces in zip(shard.batches, trials(shard, crashes), strict=True):
                if not self._batch(_Place(shard, batch, attempt, lease, writer, at), pieces):
                    return False
            writer.wait()
            return True
        except Exception as error:
            at.note_error(error)
            raise
        finally:
            writer.close()
            at.close()

    def _batch(self, place: "_Place", pieces: list[Trial]) -> bool:
        done = max(0, place.attempt.rows - place.before)
        missing = [piece for piece in pieces if piece.rows.stop > done]
        suspected = len(pieces) > 1 or pieces[0].reason is not None
        if suspected and missing:
            self._control(place)
        for piece in missing:
            rows = range(max(done, piece.rows.start), piece.rows.stop)
            if piece.reason is not None:
                self._give_up(place, rows, piece.reason)
            elif not self._rows(place, rows):
                return False
            if suspected:
                place.writer.wait()  # so that a crash can only be caused by the next piece
        return True

    def _rows(self, place: "_Place", rows: range) -> bool:
        """Make rows of a batch in the calls of the whole batch: the first row stands in for rows that are not wanted.

        So each call keeps its shape and each image its bits.
        """
        batch, count = place.batch, len(place.batch.prompts)
        place.note(rows.stop)
        ooms = self._fitting.ooms
        policy = self._fitting.begin(batch.size)
        unit = _Unit(place.shard.index, batch.index, rows.start, ooms)
        with unit.watches["encode"]:
            texts = self._fitting.encode(batch.size, [batch.prompts[row] for row in rows])
        for span in spans(count, policy.micro_batch):
            if span.stop <= rows.start or span.start >= rows.stop:
                continue
            if self._stop.is_set():
                break
            stop_row = min(span.stop, rows.stop)
            place.note(stop_row)
            called = [batch.prompts[row if row in rows else rows.start] for row in span]
            with unit.watches["denoise"]:
                latents = self._fitting.denoise(batch.size, texts, called)
            unit.latents += latents[max(0, rows.start - span.start) : stop_row - span.start]
            place.lease.beat(place.before + stop_row)
            # A unit ends where a decode chunk does, so that its end never changes which images decode together.
            last = stop_row == rows.stop
            stop_row -= 0 if last else stop_row % policy.decode_chunk
            if last or (stop_row > unit.first_row and (unit.age_s() >= UNIT_S or self._stop.is_set())):
                made = stop_row - unit.first_row
                unit.latents, rest = unit.latents[:made], unit.latents[made:]
                self._finish(place, unit, texts, policy.decode_chunk)
                unit = _Unit(place.shard.index, batch.index, stop_row, self._fitting.ooms, rest)
        if unit.first_row == rows.stop:
            return True
        place.writer.wait()
        return False

    def _finish(self, place: "_Place", unit: "_Unit", texts: Any, chunk: int) -> None:
        place.writer.wait()
        batch = place.batch
        prompts = batch.prompts[unit.first_row : unit.first_row + len(unit.latents)]
        # Chunks are counted from the batch's first row: a unit that begins or ends within one is filled up.
        before = unit.first_row % chunk
        after = min(-(before + len(prompts)) % chunk, len(batch.prompts) - unit.first_row - len(prompts))
        latents = [unit.latents[0]] * before + unit.latents + [unit.latents[-1]] * after
        futures = []
        with unit.watches["decode"]:
            decoded = self._fitting.decode(batch.size, latents)[before : before + len(prompts)]
            for prompt, (image, policy) in zip(prompts, decoded, strict=True):
                unit.retries += image.retried_in_fp32
                cuts = cuts_of(texts, prompt)
                futures.append(place.writer.encode(self._maker.assemble, prompt, cuts, image, policy))
        self._log.add("made", shard=unit.shard, batch=unit.batch, first_row=unit.first_row, images=len(prompts))
        record = self._record(place, unit, policy, len(prompts))
        place.writer.append(place.attempt, futures, record)

    def _give_up(self, place: "_Place", rows: range, reason: str) -> None:
        """Append rows that crash as failed, in their place."""
        unit = _Unit(place.shard.index, place.batch.index, rows.start, self._fitting.ooms)
        failed = [Sample(place.batch.prompts[row].key, "failed", reason=f"it crashed: {reason}") for row in rows]
        policy = self._fitting.begin(place.batch.size)
        self._log.add("given_up", shard=unit.shard, batch=unit.batch, first_row=rows.start, reason=reason)
        record = self._record(place, unit, policy, len(failed))
        place.writer.wait()
        place.writer.append(place.attempt, [place.writer.encode(replace, sample) for sample in failed], record)

    def _control(self, place: "_Place") -> None:
        """Make the same call with an empty prompt before rows are blamed: if it crashes, the rows are not at fault."""
        place.at.note(place.before, place.before)
        batch = place.batch
        policy = self._fitting.begin(batch.size)
        blank = replace(batch.prompts[0], key="control-00", prompt="", negative_prompt="", seed=0)
        texts = self._fitting.encode(batch.size, [blank])
        rows = min(policy.micro_batch, len(batch.prompts))
        latents = self._fitting.denoise(batch.size, texts, [blank] * rows)
        self._fitting.decode(batch.size, latents[: policy.decode_chunk])

    def _record(self, place: "_Place", unit: "_Unit", policy: Policy, images: int) -> UnitRecord:
        meters = read_meters()
        self.host_growth.add(meters.host_rss_bytes)
        self.device_growth.add(meters.peak_reserved_bytes)
        return {
            "shard": unit.shard,
            "batch": unit.batch,
            "first_row": unit.first_row,
            "started_at": unit.started_at,
            "worker": self._worker["worker"],
            "host": self._worker["host"],
            "device": self._worker["device"],
            "attempt": place.attempt.files.attempt,
            "images": images,
            "seconds": round(unit.age_s(), 3),
            "stage_seconds": {name: round(watch.seconds(), 3) for name, watch in unit.watches.items()},
            "micro_batch": policy.micro_batch,
            "decode_chunk": policy.decode_chunk,
            "policy": asdict(policy),
            "predicted_peak_bytes": self._policies.predicted_bytes(policy, *place.batch.size),
            "peak_allocated_bytes": meters.peak_allocated_bytes,
            "peak_reserved_bytes": meters.peak_reserved_bytes,
            "device_free_bytes": meters.device_free_bytes,
            "device_used_bytes": meters.device_used_bytes,
            "host_rss_bytes": meters.host_rss_bytes,
            "host_pinned_bytes": meters.host_pinned_bytes,
            "ooms": self._fitting.ooms - unit.ooms_before,
            "retries": unit.retries,
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """A batch to make, its shard, and what its images are written to."""

    shard: Shard
    batch: Batch
    attempt: Attempt
    lease: Lease
    writer: UnitWriter
    at: RowsAt

    @property
    def before(self) -> int:
        """How many rows of the shard come before the batch."""
        return sum(len(one.prompts) for one in self.shard.batches[: self.batch.index])

    def note(self, stop_row: int) -> None:
        """Note the rows under way: all that are not on the disk, up to this row of the batch."""
        self.at.note(self.attempt.rows, self.before + stop_row)


class _Unit:
    """The rows under way: those of one batch from `first_row` on that are denoised and not yet decoded."""

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
