"""The files that close a data set: which of them lack a copy, and whether the copy of one may be written.

index.json, samples.parquet and the card are copied at the end of a run, after its shards. They may be written again
later, so a copy counts while its record has the digest of what is here. A card that is there already and that this run
did not copy is a person's, and is left as it is.
"""

from pathlib import Path

from batchgen.files import is_plain, sha256_unless_known
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.copies import record_of, to_copy
from batchgen.stores.bucket import Bucket
from batchgen.stores.hub import Hub


def closing(run: RunDir) -> dict[str, Path]:
    """The files that close a data set, by their names."""
    return {path.name: path for path in (run.index, run.samples_table, run.card)}


def to_close(plan: Plan, address: str) -> set[str]:
    """The names of those that lack a copy at this address, once all shards have theirs. Raises OSError."""
    run = plan.run
    if not run.index.is_file() or to_copy(plan):
        return set()
    return {name for name, path in closing(run).items() if is_plain(path) and not _is_copied(run, name, address)}


def _is_copied(run: RunDir, name: str, address: str) -> bool:
    record = record_of(run, name)
    # A table of a million rows is not read at each look.
    digest = sha256_unless_known(closing(run)[name])
    return record is not None and (record["to"], record["sha256"]) == (address, digest)


def is_a_persons(run: RunDir, store: Bucket | Hub, name: str) -> bool:
    """Whether the store has a card that this run did not copy, or that was edited since. Raises StoreError, OSError."""
    if name != run.card.name or not store.holds(name):
        return False
    record = record_of(run, name)
    if record is None or record["to"] != store.address:
        return True
    problem, _ = store.ask(name, record["bytes"], record["sha256"], record["store_checksum"], deep=True)
    return problem is not None
