"""Copies of committed shards elsewhere: copies/000007.json is the record of a copy that was checked.

A record counts only for the attempt that its shard's manifest names. It is durable before a tar leaves this disk, and
it says whether the tar may have left: a tar that is gone otherwise is lost, whatever the settings are now.
"""

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, cast

from batchgen.errors import BatchgenError
from batchgen.files import replace, seal, sync_directory, unseal
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.leases import Watch
from batchgen.stores.bucket import Bucket
from batchgen.stores.hub import Hub
from batchgen.stores.target import target

FORMAT = 1
_RECORD = re.compile(r"(\d{6,})\.json")


class CopyRecord(TypedDict):
    """copies/000007.json: a tar and its checked copy.

    `to`: the address that was set; `url`: where the tar is. `checked`: how, for people. `store_checksum`: what the
    store states of it, or None. `keeps_local`: false where the tar may have left this disk. The records of files that
    close a data set, such as index.json, have shard None and an empty attempt.
    """

    format: int
    run_id: str
    shard: int | None
    attempt: str
    bytes: int
    sha256: str
    to: str
    url: str
    checked: str
    store_checksum: str | None
    keeps_local: bool
    copied_at: str
    host: str


def new_record(**facts: Any) -> CopyRecord:
    """A record of a copy that was checked just now, on this machine."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return cast(CopyRecord, {"format": FORMAT, **facts, "copied_at": now, "host": socket.gethostname()})


def record_path(run: RunDir, item: int | str) -> Path:
    """Where the record of the copy of a shard is, or of a file in the run's directory by its name."""
    return run.copy_record(item) if isinstance(item, int) else run.copies / f"{item.removesuffix('.json')}.json"


def make_directory(run: RunDir) -> None:
    """Make the directory of the records, durably: a power cut must not take it when tars have left. Raises OSError."""
    run.copies.mkdir(exist_ok=True)
    sync_directory(run.root)


def keep_record(run: RunDir, record: CopyRecord, name: str = "") -> None:
    """Write a record durably, in place of an older one. `name`: of a file that is no shard's. Raises OSError."""
    if not run.copies.is_dir():
        make_directory(run)
    replace(record_path(run, name if record["shard"] is None else record["shard"]), seal(record))


def record_of(run: RunDir, item: int | str) -> CopyRecord | None:
    """The record of a shard's or a file's copy; None where there is none, or it is damaged. Raises OSError."""
    shard = item if isinstance(item, int) else None
    try:
        record = unseal(record_path(run, item).read_bytes())
    except FileNotFoundError:
        return None
    whole = record is not None and record.keys() >= CopyRecord.__annotations__.keys() and record["shard"] == shard
    return cast(CopyRecord, record) if whole and record and record["format"] == FORMAT else None


def is_elsewhere(run: RunDir, shard: int, attempt: str, tar_bytes: int) -> bool:
    """Whether the tar of this attempt may be gone from this disk, since its copy was checked. Raises OSError."""
    record = record_of(run, shard)
    if record is None or record["keeps_local"]:
        return False
    return (record["attempt"], record["bytes"]) == (attempt, tar_bytes)


def copied(run: RunDir) -> set[int]:
    """The shards that have a record, by its name: one listing."""
    with suppress(FileNotFoundError):
        found = (_RECORD.fullmatch(path.name) for path in run.copies.iterdir())
        return {int(match[1]) for match in found if match}
    return set()


def to_copy(plan: Plan) -> set[int]:
    """The committed shards of the plan that lack a copy; none where `output.copy_to` is not set."""
    if plan.config.output.copy_to is None:
        return set()
    return (plan.run.committed() & set(range(plan.shard_count))) - copied(plan.run)


def copies_line(plan: Plan) -> str | None:
    """How many shards are copied, and to where, in a line; None where `output.copy_to` is not set."""
    address = plan.config.output.copy_to
    if address is None:
        return None
    there = len(copied(plan.run) & set(range(plan.shard_count)))
    return f"{there} of {plan.shard_count} shards are copied to {address}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a store says of a copy: what is wrong (None: nothing), how that was found, and why it did not answer."""

    problem: str | None
    how: str
    unreached: str | None = None


def ask_store(run: RunDir, record: CopyRecord, deep: bool = False) -> Asked:
    """Ask the store that a shard's record names for the copy: its size and checksum, or all of it if `deep`."""
    assert record["shard"] is not None
    name = run.tar(record["shard"]).relative_to(run.root).as_posix()
    try:
        store = _store(record["to"])
        found = store.ask(name, record["bytes"], record["sha256"], record["store_checksum"], deep)
    except BatchgenError as error:
        return Asked(None, "", str(error))
    problem, how = found
    return Asked(None if problem is None else f"the copy {record['url']} {problem}", f"{record['to']}, {how}")


@cache
def _store(address: str) -> Bucket | Hub:
    return target(address)


def files_of(run: RunDir, shard: int) -> list[Path]:
    """What is copied of a shard, its manifest last. The memory log is left out where somebody removed it."""
    paths = [run.tar(shard), run.memory_log(shard), run.manifest(shard)]
    return [path for path in paths if path != run.memory_log(shard) or path.exists()]


def lease_path(run: RunDir, name: int | str) -> Path:
    """The lease of whoever copies this shard, or what has this name."""
    return run.leases / (f"copy-{name:06d}" if isinstance(name, int) else f"copy-{name}")


def copiers(run: RunDir, watch: Watch) -> dict[Path, bytes]:
    """The leases on copies that somebody holds, with their contents. Raises OSError."""
    live = {path: watch.live(path) for path in run.leases.glob("copy-*")}
    return {path: content for path, content in live.items() if content is not None}


def sweep_leases(run: RunDir) -> None:
    """Remove what copiers that were killed left in leases/, of a run whose copies are all there."""
    for path in run.leases.glob("copy-*"):
        path.unlink(missing_ok=True)
