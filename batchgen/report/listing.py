"""Every planned image, what became of it, and where its bytes are in the tars. It reads the run and changes nothing.

An image that was tried again (`retry_failed`) is listed once, where it was tried last. What cannot be read is listed as
open, and a line says why: a report is made of a broken run, too.
"""

import mmap
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from batchgen.errors import BrokenRunError
from batchgen.paths import AttemptFiles
from batchgen.plan.store import Plan
from batchgen.shards.attempt import read_manifest, tar_problem
from batchgen.shards.journal import plan_of, read_journal
from batchgen.shards.records import SampleRecord
from batchgen.types import Prompt

_BLOCK = tarfile.BLOCKSIZE
_NAME, _SIZE = slice(0, 100), slice(124, 136)  # in the header of a member


class Span(NamedTuple):
    """Where the bytes of a file are in a tar."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A planned image and what became of it.

    `status`: "ok", "failed" or "filtered", each with a reason unless it is "ok", or "open" while it is not committed.
    `member`: the image's name in the tar; `sha256`: of its bytes, only if it is "ok". `tar`: where that tar is on this
    disk, None if it is not, and `offset` and `size`: of the image's bytes in it, None where they are not found there.
    """

    prompt: Prompt
    shard: int
    status: str
    reason: str | None
    member: str
    sha256: str | None = None
    tar: Path | None = None
    offset: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What became of the keys of a shard, and its tar if it is on this disk, with the bytes that count of it.

    `log`: its memory log. Of a shard that is `under_way` these are of the attempt that holds most rows.
    """

    samples: list[SampleRecord]
    tar: Path | None
    tar_bytes: int
    log: Path
    under_way: bool = False


class Listing:
    """The images of a plan, shard by shard. `problems`: what could not be read so far, a line each."""

    def __init__(self, plan: Plan, under_way: bool = False) -> None:
        """It looks which shards are committed, and reads the manifests of retries.

        With `under_way` the finished images of shards that are not committed yet count as well.
        """
        self.plan = plan
        self.problems: list[str] = []
        self._committed = plan.run.committed()
        self._extension = plan.planned.output.format
        self._attempts: dict[int, list[AttemptFiles]] = {}
        for files in plan.run.attempts() if under_way else ():
            self._attempts.setdefault(files.shard, []).append(files)
        self._retried: dict[str, int] = {}
        for shard in sorted(self._retries()):
            found = self.held(shard)
            self._retried |= {record["key"]: shard for record in found.samples} if found else {}

    def held(self, shard: int) -> Held | None:
        """What is there of a shard; None where nothing is, or it is broken, which is then a problem."""
        if shard not in self._committed:
            return self._under_way(shard)
        run = self.plan.run
        try:
            manifest = read_manifest(run, shard)
            if (manifest["run_id"], manifest["plan_sha256"]) != (self.plan.run_id, self.plan.digest(shard)):
                raise BrokenRunError(f"{run.manifest(shard)} belongs to another run or plan")
            waiting = run.attempt(shard, manifest["attempt"])  # of a commit that was cut off
            if waiting.tar.exists() and not run.tar(shard).exists():
                return Held(manifest["samples"], waiting.tar, manifest["bytes"], waiting.journal)
            problem = tar_problem(run, shard, manifest["attempt"], manifest["bytes"])
            self.problems += [problem] if problem else []
            tar = run.tar(shard) if run.tar(shard).exists() else None
            return Held(manifest["samples"], tar, manifest["bytes"], run.memory_log(shard))
        except (BrokenRunError, OSError, KeyError, TypeError) as error:
            told = str(error) if isinstance(error, BrokenRunError) else f"shard {shard:06d}'s manifest cannot be read"
            self.problems.append(told.partition(": python -m")[0])
            return None

    def _under_way(self, shard: int) -> Held | None:
        wanted = (self.plan.run_id, self.plan.digest(shard)) if shard in self._attempts else None
        best = None
        for files in self._attempts.get(shard, ()):
            with suppress(OSError):  # it was committed meanwhile
                journal = read_journal(files.journal)
                if journal is not None and plan_of(journal.header) == wanted:
                    samples = [one for record in journal.records for one in record["samples"]]
                    if best is None or len(samples) > len(best.samples):
                        best = Held(samples, files.tar, journal.tar_end, files.journal, under_way=True)
        return best

    def owns(self, shard: int, key: str) -> bool:
        """Whether a key is listed at this shard, which is the last one that tried it."""
        return self._retried.get(key, shard) == shard

    def images(self, shard: int, keys: Collection[str] | None = None) -> Iterator[Listed]:
        """The images that are listed at a shard, in plan order; only those of `keys`, if they are given."""
        found = self.held(shard)
        if found is None and shard in self._retries():
            return
        try:
            prompts = [prompt for batch in self.plan.shard(shard)[0].batches for prompt in batch.prompts]
        except BrokenRunError as error:
            self.problems.append(str(error))
            return
        records = {record["key"]: record for record in found.samples} if found else {}
        spans = members(found.tar) if found and found.tar else {}
        for prompt in prompts:
            if self.owns(shard, prompt.key) and (keys is None or prompt.key in keys):
                yield self._listed(prompt, shard, records.get(prompt.key), found, spans)

    def _listed(
        self, prompt: Prompt, shard: int, record: SampleRecord | None, found: Held | None, spans: dict[str, Span]
    ) -> Listed:
        member = f"{prompt.key}.{self._extension}"
        if record is None or record["status"] != "ok":
            status, reason = ("open", None) if record is None else (record["status"], record.get("reason"))
            return Listed(prompt, shard, status, reason, member)
        span = spans.get(member)
        digest = record.get("sha256", {}).get(self._extension)
        tar = found.tar if found else None
        where = (span.offset, span.size) if span else (None, None)
        return Listed(prompt, shard, "ok", None, member, digest, tar, *where)

    def _retries(self) -> set[int]:
        retries = (one for one in self.plan.segments if one.kind == "retry")
        return {one.first_shard + place for one in retries for place in range(len(one.shards))}


def listed(plan: Plan, problems: list[str] | None = None) -> Iterator[Listed]:
    """Every planned image once, shard by shard. What could not be read goes into `problems`, a line each."""
    listing = Listing(plan)
    for shard in range(plan.shard_count):
        yield from listing.images(shard)
    if problems is not None:
        problems += dict.fromkeys(listing.problems)


def members(tar: Path) -> dict[str, Span]:
    """Where the files of a tar are, by their names, as far as its headers can be read. Nothing else of it is read."""
    found: dict[str, Span] = {}
    with suppress(OSError, ValueError), tar.open("rb") as file, _mapped(file) as data:
        at = 0
        while at + _BLOCK <= len(data):
            header = data[at : at + _BLOCK]
            name = header[_NAME].rstrip(b"\0").decode("ascii", "replace")
            size = int(header[_SIZE].rstrip(b"\0 ") or b"x", 8)  # ends at the blocks of zeros, too
            at += _BLOCK
            if at + size > len(data):
                break
            found[name] = Span(at, size)
            at += -(-size // _BLOCK) * _BLOCK
    return found


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The file's bytes, read where they are looked at. Raises ValueError for an empty file."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
