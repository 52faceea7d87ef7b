"""What a plan writes: the content of run.json and of the files of its shards."""

import json
from typing import Any, NamedTuple, TypedDict

from batchgen.files import sha256_bytes, to_json
from batchgen.types import GUIDED_ABOVE, Batch, Lora, Prompt, Shard


class ShardSize(NamedTuple):
    """How much a shard holds. JSON writes it as [batches, images]."""

    batches: int
    images: int


class LoraFile(NamedTuple):
    """A LoRA file that rows are made with. JSON writes it as [path, sha256]."""

    path: str
    sha256: str


# The form of a sample's JSON (shards/samples.py) is counted up when a field gets another name or type. A run keeps the
# form that it was begun with; a plan that states none was begun with 1, in which fields may be null and `row` is an
# object. Form 2 has no lora, and policies have `compile` from form 4 on.
SAMPLE_FORM = 4


class RunFacts(TypedDict, total=False):
    """run.json. Plans of older versions lack the last keys."""

    format: int
    run_id: str
    kind: str  # "run", "extend" or "retry"
    created_at: str
    first_shard: int
    shards: list[ShardSize]
    rejects: int  # how many rows could not be used
    limit: int | None  # job.limit; plans of older versions state it in the recipe
    inputs: list[dict[str, Any]]  # name, bytes and sha256 of each prompt file; `inputs.Entry`
    loras: list[LoraFile]  # of all rows; a plan that states none has none
    recipe: dict[str, Any]  # what must not change on a resume
    sample_form: int  # SAMPLE_FORM
    versions: dict[str, str]
    computes: int  # `recipe.COMPUTES`; a plan that states none was made by 1
    reads: int  # `prompts.READS`: how its prompt files are read; a plan that states none was read by 1
    sha256: dict[str, str]  # of the plan's other files, by name
    checksum: str  # of all the keys before it


def checksum(facts: RunFacts) -> str:
    """What `facts` must state as their checksum: the SHA-256 of all the other keys."""
    return sha256_bytes(to_json({name: fact for name, fact in facts.items() if name != "checksum"}).encode())


def shard_lines(shard: Shard) -> bytes:
    """A shard as its file holds it: a line of JSON for each prompt."""
    lines = [to_json({"batch": batch.index} | _fields(prompt)) for batch in shard.batches for prompt in batch.prompts]
    return ("\n".join(lines) + "\n").encode()


def _fields(prompt: Prompt) -> dict[str, Any]:
    fields = {name: getattr(prompt, name) for name in Prompt.__slots__}
    if prompt.guided_above == GUIDED_ABOVE:
        del fields["guided_above"]  # plans of older versions have none
    if not prompt.lora:
        del fields["lora"]
    return fields


def parse_shard(index: int, data: bytes) -> Shard:
    """The shard in the bytes of its file. Raises ValueError, KeyError or TypeError if they hold none."""
    batches: list[list[Prompt]] = []
    for line in data.splitlines():
        fields = json.loads(line)
        place = fields.pop("batch")
        if place == len(batches):
            batches.append([])
        lora = tuple(Lora(*one) for one in fields.pop("lora", ()))
        batches[place].append(Prompt(**fields, lora=lora))
    return Shard(index, tuple(Batch(place, tuple(prompts)) for place, prompts in enumerate(batches)))
