"""What a plan holds besides its facts, written into its draft: the shards, and copies of fetched prompt files."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from batchgen.files import sync, sync_directory, to_json, write_new
from batchgen.plan.inputs import Entry, Input
from batchgen.plan.records import LoraFile, ShardSize, shard_lines
from batchgen.plan_dir import PlanDir
from batchgen.types import Reject, Shard


class Written(NamedTuple):
    """What a plan's shards are together: their sizes, how many rows cannot be used, and the LoRA files of all rows."""

    sizes: list[ShardSize]
    rejects: int
    loras: list[LoraFile]


def write_shards(draft: PlanDir, shards: Iterable[Shard | Reject]) -> Written:
    """Write the shards and the list of rows that cannot be used."""
    sizes = []
    rejects = 0
    loras: dict[LoraFile, None] = {}
    with draft.rejects.open("wb") as reject_file:
        for shard in shards:
            if isinstance(shard, Reject):
                line = to_json({"file": shard.source, "line": shard.line, "reason": shard.reason})
                reject_file.write(line.encode() + b"\n")
                rejects += 1
                continue
            write_new(draft.shard(shard.index), shard_lines(shard))
            loras |= dict.fromkeys(
                LoraFile(one.path, one.sha256) for batch in shard.batches for one in batch.prompts[0].lora
            )
            sizes.append(ShardSize(len(shard.batches), sum(len(batch.prompts) for batch in shard.batches)))
        reject_file.flush()
        sync(reject_file.fileno())
    return Written(sizes, rejects, list(loras))


def write_prompts(draft: PlanDir, target: PlanDir, inputs: Sequence[Input]) -> list[Entry]:
    """Copy the prompt files that were fetched; return all as the plan lists them. The draft is to become `target`."""
    entries, taken = [], set[str]()
    for one in inputs:
        if one.file.address is None:
            entries.append(one.entry)
            continue
        name = _free_name(one.file.path.name, taken)
        taken.add(name)
        draft.prompts.mkdir(exist_ok=True)
        with one.file.path.open("rb") as source, (draft.prompts / name).open("xb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            sync(copy.fileno())
        entries.append(one.entry | {"copy": f"{target.root.name}/{draft.prompts.name}/{name}"})
    if taken:
        sync_directory(draft.prompts)
    return entries


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or with a number before its suffixes where another file has it."""
    stem, dot, suffixes = name.partition(".")
    names = (f"{stem}-{number}{dot}{suffixes}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(one for one in names if one not in taken)


def copies_in(run_root: Path, entries: Iterable[Entry]) -> Mapping[str, Path]:
    """The copies of fetched prompt files that plans hold, by the files' names."""
    found = {entry["file"]: PurePath(entry["copy"]) for entry in entries if "copy" in entry}
    return {name: run_root / copy for name, copy in found.items() if ".." not in copy.parts and not copy.is_absolute()}
