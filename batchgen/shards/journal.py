"""Reading an attempt's journal: what it proves about the bytes in the attempt's tar."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from batchgen.files import sha256_bytes, unseal
from batchgen.paths import AttemptFiles
from batchgen.shards.memory_log import BatchRecord
from batchgen.shards.records import Header

_RECORD_KEYS = {"tar_start", "tar_end", "sha256", "samples"}


@dataclass(frozen=True, slots=True)
class Journal:
    """An attempt's header, and the records that are sound."""

    header: Header
    records: list[BatchRecord]

    @property
    def tar_end(self) -> int:
        """How many bytes of the tar the records cover."""
        return int(self.records[-1]["tar_end"]) if self.records else 0

    @property
    def rows(self) -> int:
        """How many rows of the shard, from its first, the records cover."""
        return sum(len(record["samples"]) for record in self.records)


def read_journal(path: Path) -> Journal | None:
    """The journal's header and its leading sound records; None where not even the header is sound."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    header = unseal(lines[0]) if lines else None
    if header is None:
        return None
    records: list[BatchRecord] = []
    for line in lines[1:]:
        record = unseal(line)
        start = records[-1]["tar_end"] if records else 0
        if record is None or not record.keys() >= _RECORD_KEYS or record["tar_start"] != start:
            break
        records.append(cast(BatchRecord, record))
    return Journal(cast(Header, header), records)


def sound_prefix(files: AttemptFiles, run_id: str, plan_digest: str) -> Journal | None:
    """The part of an attempt that can be used again: of the same run and plan, with bytes that match the records."""
    journal = read_journal(files.journal)
    if journal is None or plan_of(journal.header) != (run_id, plan_digest):
        return None
    good = []
    try:
        with files.tar.open("rb") as tar:
            for record in journal.records:
                if sha256_bytes(tar.read(record["tar_end"] - record["tar_start"])) != record["sha256"]:
                    break
                good.append(record)
    except FileNotFoundError:
        return None
    return Journal(journal.header, good)


def plan_of(header: Header) -> tuple[Any, Any]:
    """The run id, and the digest of the shard's plan, that an attempt is for."""
    return (header.get("run_id"), header.get("plan_sha256"))
