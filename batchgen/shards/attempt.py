"""The commit protocol: an attempt at a shard, its journal, and how exactly one attempt becomes the shard.

1. `Attempt.append`: the samples' bytes to the attempt's tar, fsync, then their record to its journal, fsync.
2. `Attempt.resume`: takes over the longest sound prefix that earlier attempts at this shard left.
3. `Attempt.commit`: close the tar, write the manifest, `link()` it to shards/. The link is the commit.
4. `publish`: link the tar and the journal that the manifest names to their final names.

A tar never proves its own completeness; only the manifest does. Committed shards never change.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from batchgen.errors import BrokenRunError, ResumeError
from batchgen.files import (
    create,
    put,
    put_aside,
    put_over,
    read,
    seal,
    sha256_bytes,
    sha256_file,
    sync,
    sync_directory,
    unseal,
    write_all,
    write_new,
)
from batchgen.machine import process
from batchgen.paths import AttemptFiles, RunDir
from batchgen.plan.recipe import COMPUTES
from batchgen.plan.replan import refuse_replaced
from batchgen.shards.copies import is_elsewhere
from batchgen.shards.journal import Journal, plan_of, read_journal, sound_prefix
from batchgen.shards.memory_log import Proof, UnitRecord, proven
from batchgen.shards.records import Header, Manifest, SampleRecord, sample_record
from batchgen.shards.tars import END_OF_TAR, tar_members
from batchgen.types import Sample, Shard

FORMAT = 1
_COPY_BYTES = 1 << 20


class Attempt:
    """One worker's try at one shard. Nobody else writes its files. After any error it must not be used again."""

    def __init__(self, run: RunDir, shard: Shard, run_id: str, plan_digest: str, worker: str) -> None:
        self.files = run.attempt(shard.index, uuid.uuid4().hex)
        self._run = run
        self._shard = shard
        self._header: Header = {
            "format": FORMAT,
            "run_id": run_id,
            "shard": shard.index,
            "plan_sha256": plan_digest,
            "computes": COMPUTES,
            "attempt": self.files.attempt,
            "worker": worker,
            "process": process.identity(),
        }
        self._samples: list[SampleRecord] = []
        self._tar_bytes = 0
        self._tar_digest = hashlib.sha256()
        self._tar = create(self.files.tar)
        try:
            self._journal = create(self.files.journal)
        except BaseException:
            os.close(self._tar)
            raise
        write_all(self._journal, seal(self._header))
        sync_directory(run.work)

    @property
    def header(self) -> Header:
        """The run, plan and shard that the attempt is for, and the worker and process that make it."""
        return self._header

    @property
    def rows(self) -> int:
        """How many rows of the shard the attempt holds."""
        return len(self._samples)

    def resume(self) -> None:
        """Copy the longest sound prefix of the earlier attempts at this shard.

        Attempts whose process is known to be gone are then removed. Others may be alive and could commit at any
        moment: their files stay until the shard is committed, when they can no longer win.
        """
        others = [other for other in self._run.attempts(self._shard.index) if other.attempt != self.files.attempt]
        prefixes = [(sound_prefix(other, *plan_of(self._header)), other) for other in others]
        usable = [(prefix, other) for prefix, other in prefixes if prefix is not None and prefix.records]
        if usable:
            with suppress(FileNotFoundError):  # another worker committed the shard meanwhile and swept work/
                self._take_over(*max(usable, key=lambda pair: pair[0].rows))
        for other in others:
            journal = read_journal(other.journal)
            if journal is not None and process.is_gone(journal.header.get("process")):
                _remove_bytes(other)  # whoever waited for that process looks at the rest

    def _take_over(self, prefix: Journal, other: AttemptFiles) -> None:
        with other.tar.open("rb") as tar:
            while self._tar_bytes < prefix.tar_end:
                self._write(tar.read(min(_COPY_BYTES, prefix.tar_end - self._tar_bytes)))
        sync(self._tar)
        for record in prefix.records:
            write_all(self._journal, seal(record))
        sync(self._journal)
        sync_directory(self._run.work)
        self._samples = [sample for record in prefix.records for sample in record["samples"]]

    def _write(self, data: bytes) -> None:
        write_all(self._tar, data)
        self._tar_digest.update(data)
        self._tar_bytes += len(data)

    def append(self, samples: Sequence[Sample], record: Callable[[], UnitRecord]) -> None:
        """Make a unit's samples durable, and then its record.

        `record` is called when the samples are on the disk; it gives the rest of the memory log's record.
        """
        data = b"".join(tar_members(sample) for sample in samples if sample.status == "ok")
        tar_start = self._tar_bytes
        self._write(data)
        sync(self._tar)
        facts = [sample_record(sample) for sample in samples]
        proof: Proof = {
            "tar_start": tar_start,
            "tar_end": self._tar_bytes,
            "sha256": sha256_bytes(data),
            "samples": facts,
        }
        write_all(self._journal, seal(proven(record(), proof)))
        sync(self._journal)
        self._samples += facts

    def commit(self) -> bool:
        """Make this attempt the shard. False where another attempt was first; this attempt's files are then removed.

        Raises BrokenRunError where the keys that were appended are not the planned ones.
        """
        try:
            return self._commit()
        except FileNotFoundError:
            if not self._run.manifest(self._shard.index).exists():
                raise
            self.discard()  # another worker committed the shard and swept our files away
            return False

    def _commit(self) -> bool:
        if [sample["key"] for sample in self._samples] != self._shard.keys:
            raise BrokenRunError(f"shard {self._shard.index}: the attempt holds keys other than the planned ones")
        self._write(END_OF_TAR)
        sync(self._tar)
        self.close()
        manifest: Manifest = {
            **self._header,
            "bytes": self._tar_bytes,
            "sha256": self._tar_digest.hexdigest(),
            "samples": self._samples,
        }
        write_new(self.files.manifest, seal(manifest))
        try:
            refuse_replaced(self._run, self._header["run_id"])
        except ResumeError:
            self.discard()
            raise
        self.files.tar.stat()  # raises if it was swept while this process was stopped: the manifest must not be linked
        sync_directory(self._run.work)
        won = put(self.files.manifest, self._run.manifest(self._shard.index))
        winner = manifest if won else read_manifest(self._run, self._shard.index)
        sync_directory(self._run.shards)
        publish(self._run, winner)
        if winner["attempt"] != self.files.attempt:
            self.discard()
            return False
        return True

    def close(self) -> None:
        """Close the files; what was appended stays for the next attempt."""
        for name in ("_tar", "_journal"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def discard(self) -> None:
        """Close and remove this attempt's files."""
        self.close()
        remove(self.files)


def read_manifest(run: RunDir, shard: int) -> Manifest:
    """The manifest of a committed shard. Raises BrokenRunError where it is damaged or belongs to another shard."""
    path = run.manifest(shard)
    manifest = unseal(read(path))
    if manifest is None or (manifest.get("shard"), manifest.get("format")) != (shard, FORMAT):
        raise BrokenRunError(f"{path} is damaged: {advice(run)}")
    return cast(Manifest, manifest)


def publish(run: RunDir, manifest: Manifest) -> None:
    """Give the tar and the journal that a manifest names their final names. Any process may call it.

    The tar must be there afterwards; the memory log is for people, and a shard is whole without it.
    Raises BrokenRunError where the tar is gone, or the manifest no longer belongs to the shard.
    """
    shard = int(manifest["shard"])
    files = run.attempt(shard, str(manifest["attempt"]))
    tar = run.tar(shard)
    with suppress(FileNotFoundError):  # another worker published it, and removed our source; or it is gone
        if not put(files.tar, tar) and not tar.samefile(files.tar) and sha256_file(tar) != manifest["sha256"]:
            if read_manifest(run, shard) != manifest:
                raise BrokenRunError(f"{tar} belongs to another attempt than {files.tar}: run the same command again")
            put_aside(tar, run.damaged)  # left by a repair that was cut off
            put_over(files.tar, tar)
    if (problem := tar_problem(run, shard, str(manifest["attempt"]), manifest["bytes"])) is not None:
        raise BrokenRunError(f"{tar}: {problem}: {advice(run)}")
    try:
        _publish_log(files, run.memory_log(shard))
    except FileNotFoundError:  # another worker published it; or somebody removed the logs
        run.create_directories()
        with suppress(FileNotFoundError):
            _publish_log(files, run.memory_log(shard))
    sync_directory(run.shards)
    sync_directory(run.memory_logs)
    remove(files)


def _publish_log(files: AttemptFiles, log: Path) -> None:
    if not put(files.journal, log) and not log.samefile(files.journal):
        put_over(files.journal, log)  # the log that was there belongs to a shard that was set aside


def tar_problem(run: RunDir, shard: int, attempt: str, stated_bytes: int) -> str | None:
    """What is wrong with the tar of a committed shard, judged by its size; None where nothing is.

    Nothing is wrong, either, with a tar that left this disk after its copy was checked.
    """
    try:
        size_bytes = run.tar(shard).stat().st_size
    except FileNotFoundError:
        return None if is_elsewhere(run, shard, attempt, stated_bytes) else f"shard {shard:06d}'s tar is missing"
    if size_bytes != stated_bytes:
        return f"shard {shard:06d}'s tar has {size_bytes:,} bytes, but {stated_bytes:,} were committed"
    return None


def advice(run: RunDir) -> str:
    """What stands at the end of an error of a damaged shard: what to do."""
    return f"python -m batchgen.repair {run.root} sets the shard aside so that it is made again"


def remove(files: AttemptFiles) -> None:
    """Remove an attempt's names in work/."""
    files.at.unlink(missing_ok=True)
    _remove_bytes(files)


def _remove_bytes(files: AttemptFiles) -> None:
    for path in (files.manifest, files.journal, files.tar):
        path.unlink(missing_ok=True)


def is_done(run: RunDir, shard: int) -> bool:
    """Whether a shard is committed and published. Publishes a shard whose worker committed it and was cut off.

    Raises BrokenRunError where a committed shard differs from its manifest.
    """
    if not run.manifest(shard).exists():
        return False
    manifest = read_manifest(run, shard)
    left = run.attempt(shard, str(manifest["attempt"])).tar.exists()  # `publish` removes it last
    if left or tar_problem(run, shard, str(manifest["attempt"]), manifest["bytes"]) is not None:
        publish(run, manifest)
    return True


def sweep(run: RunDir) -> None:
    """Remove what attempts at committed shards left in work/: they can no longer win."""
    for files in run.attempts():
        with suppress(
            BrokenRunError
        ):  # its tar is gone, say: that is told by `shard_states`, and nothing of it removed
            if is_done(run, files.shard):
                remove(files)
