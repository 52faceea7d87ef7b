"""Which shards no worker has to look at any more, judged by as few calls as it takes."""

from batchgen.errors import BrokenRunError
from batchgen.paths import RunDir
from batchgen.shards.attempt import is_done
from batchgen.shards.copies import copied


def settled_by_name(run: RunDir) -> tuple[set[int], set[int]]:
    """The shards that are committed, and those of them that are settled as far as names tell.

    Their tar is there, too, or the record of its checked copy. That is one look at each of two directories, however
    many shards there are. The others need `is_settled`.
    """
    committed, tars = run.listed()
    return committed, committed & (tars | copied(run))


def is_settled(run: RunDir, shard: int) -> bool:
    """Whether no worker has to make a shard: it is done, or it was committed and is broken now.

    Where the manifest and the tar are there, their names are enough: `shard_states` reports a shard that is broken all
    the same, `repair` handles it, and it keeps no worker from the others. A commit that was cut off is published.
    """
    if not run.manifest(shard).exists():
        return False
    try:
        return run.tar(shard).exists() or is_done(run, shard)
    except BrokenRunError:
        return True
