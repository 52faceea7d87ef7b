"""What a plan writes about itself: the content of run.json."""

from typing import Any, NamedTuple, TypedDict

from batchgen.files import sha256_bytes, to_json


class ShardSize(NamedTuple):
    """How much a shard holds. JSON writes it as [batches, images]."""

    batches: int
    images: int


class RunFacts(TypedDict, total=False):
    """run.json. Plans of older versions lack the last keys."""

    format: int
    run_id: str
    kind: str  # "run", "extend" or "retry"
    created_at: str
    first_shard: int
    shards: list[ShardSize]
    rejects: int  # how many rows could not be used
    inputs: list[dict[str, Any]]  # name, bytes and sha256 of each prompt file
    recipe: dict[str, Any]  # what must not change on a resume
    versions: dict[str, str]
    computes: int  # `recipe.COMPUTES`; a plan that states none was made by 1
    sha256: dict[str, str]  # of the plan's other files, by name
    checksum: str  # of all the keys before it


def checksum(facts: RunFacts) -> str:
    """What `facts` must state as their checksum: the SHA-256 of all the other keys."""
    return sha256_bytes(to_json({name: fact for name, fact in facts.items() if name != "checksum"}).encode())
