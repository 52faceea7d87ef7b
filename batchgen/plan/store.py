"""The plan on disk: all shards of a run, fixed before the first image, and what they were made from.

A plan directory is made whole under another name, then renamed: whoever comes second uses what is there. A run
has one plan, and an extension (plan-001, ...) for each time that prompts were added or failed images retried.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from batchgen.config.schema import Config
from batchgen.errors import BrokenRunError, PromptError, UserError
from batchgen.files import sha256_bytes, sha256_file, sync, sync_directory, to_json, write_new
from batchgen.machine.process import versions
from batchgen.paths import RunDir, shard_plan
from batchgen.plan.drafts import OWNER, new_draft
from batchgen.plan.free import with_free
from batchgen.plan.recipe import COMPUTES, as_planned
from batchgen.types import Batch, Prompt, Reject, Shard

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One plan directory: the first plan of a run, or an extension of it."""

    directory: Path
    kind: str  # "run", "extend" or "retry"
    first_shard: int
    shards: list[list[int]]  # [batches, images] of each shard
    rejects: int
    inputs: list[dict[str, Any]]
    recipe: dict[str, Any]
    run_id: str
    sha256: dict[str, str]  # of its files, by name
    computes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be made, with the configuration to make it by."""

    run: RunDir
    config: Config  # as planned, but for what the last command set of that which is free to change
    planned: Config
    segments: list[Segment]

    @property
    def run_id(self) -> str:
        """The run's identity, given once."""
        return self.segments[0].run_id

    @property
    def recipe(self) -> dict[str, Any]:
        """What the first plan was made by."""
        return self.segments[0].recipe

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Name, bytes and sha256 of every prompt file, in order of their numbers in the keys."""
        return [one for segment in self.segments if segment.kind != "retry" for one in segment.inputs]

    @property
    def computes(self) -> int:
        """By which way of computing the run was begun (`recipe.COMPUTES`)."""
        return min(segment.computes for segment in self.segments)

    @property
    def sizes(self) -> list[list[int]]:
        """[batches, images] of each shard, by its index."""
        return [size for segment in self.segments for size in segment.shards]

    @property
    def images(self) -> int:
        """How many different images are planned; a retry plans none anew."""
        return sum(images for segment in self.segments if segment.kind != "retry" for _, images in segment.shards)

    def shard(self, index: int) -> tuple[Shard, str]:
        """A shard and its fingerprint, the sha256 of its file. Raises BrokenRunError."""
        segment = next(one for one in reversed(self.segments) if one.first_shard <= index)
        path = shard_plan(segment.directory, index)
        try:
            data = path.read_bytes()
            digest = sha256_bytes(data)
            if segment.sha256[path.name] != digest:
                raise ValueError("it is not what was planned; its sha256 differs")
            return _parse_shard(index, data), digest
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BrokenRunError(f"{path} of the plan cannot be read: {error}") from error

    def tried_again(self, index: int) -> set[str]:
        """Keys that a retry planned after this shard: theirs to make, should this shard have to be made again."""
        later = (one for one in self.segments if one.kind == "retry" and one.first_shard > index)
        shards = (one.first_shard + offset for one in later for offset in range(len(one.shards)))
        return {key for shard in shards for key in self.shard(shard)[0].keys}

    def prompts(self) -> Iterator[Prompt]:
        """Every planned prompt, once: a retry plans none anew."""
        for segment in self.segments:
            if segment.kind != "retry":
                for offset in range(len(segment.shards)):
                    for batch in self.shard(segment.first_shard + offset)[0].batches:
                        yield from batch.prompts


def load_plan(run: RunDir) -> Plan:
    """The plan of a run. Raises UserError where there is none, BrokenRunError where it cannot be read."""
    directories = run.plans()
    if not directories or directories[0] != run.plan:
        raise UserError(f"{run.root} is not a run: it has no plan/. Name the directory that holds one")
    try:
        segments = [_load_segment(directory) for directory in directories]
        data = (run.plan / "config.yaml").read_bytes()
        if segments[0].sha256["config.yaml"] != sha256_bytes(data):
            raise ValueError("config.yaml is not what was planned; its sha256 differs")
        planned = as_planned(yaml.safe_load(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise BrokenRunError(f"the plan in {run.root} cannot be read: {error}") from error
    return Plan(run, with_free(run, planned), planned, segments)


def _load_segment(directory: Path) -> Segment:
    facts = json.loads((directory / "run.json").read_bytes())
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']} is of another version of batchgen")
    if facts.get("checksum") != _checksum(facts):
        raise ValueError(f"{directory}/run.json is damaged, or of a batchgen that wrote no checksums")
    names = ("kind", "first_shard", "shards", "rejects", "inputs", "recipe", "run_id", "sha256")
    return Segment(directory, **{name: facts[name] for name in names}, computes=facts.get("computes", 1))


def run_id_of(run: RunDir) -> str | None:
    """The run id in the plan that is there now; None without one that can be read."""
    try:
        return str(json.loads((run.plan / "run.json").read_bytes())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_plan(plan: Plan) -> None:
    """Prove the plan to be what was once written. Reads all of it. Raises BrokenRunError."""
    first_shard = 0
    for segment in plan.segments:
        directory = segment.directory
        if (segment.first_shard, segment.run_id) != (first_shard, plan.run_id):
            raise BrokenRunError(f"{directory} does not go on where the plan before it ends: one is missing or foreign")
        for name, digest in segment.sha256.items():
            try:
                sound = sha256_file(directory / name) == digest
            except OSError as error:
                raise BrokenRunError(f"{directory / name} of the plan cannot be read: {error.strerror}") from error
            if not sound:
                raise BrokenRunError(f"{directory / name} of the plan is damaged")
        first_shard += len(segment.shards)


def _checksum(facts: dict[str, Any]) -> str:
    return sha256_bytes(to_json({name: fact for name, fact in facts.items() if name != "checksum"}).encode())


def _parse_shard(index: int, data: bytes) -> Shard:
    batches: list[list[Prompt]] = []
    for line in data.splitlines():
        fields = json.loads(line)
        place = fields.pop("batch")
        if place == len(batches):
            batches.append([])
        batches[place].append(Prompt(**fields))
    return Shard(index, tuple(Batch(place, tuple(prompts)) for place, prompts in enumerate(batches)))


@dataclass(frozen=True, slots=True)
class Sources:
    """What a plan is made from: the configuration, the prompt files and what must not change on a resume."""

    config: Config
    inputs: list[dict[str, Any]]
    recipe: dict[str, Any]


def save_plan(
    run: RunDir,
    target: Path,
    kind: str,
    first_shard: int,
    run_id: str,
    sources: Sources,
    shards: Iterable[Shard | Reject],
) -> bool:
    """Write a plan directory and name it `target`. False if another process put one there first, or swept the draft.

    Raises PromptError where no prompt can be used; then nothing is left behind.
    """
    made = [path for path in (run.root, *run.root.parents) if not path.exists()]
    draft = new_draft(target)
    try:
        sizes, rejects = _write_shards(draft, shards)
        if not sizes:
            raise PromptError(_nothing_usable(draft, rejects))
        write_new(draft / "config.yaml", yaml.safe_dump(asdict(sources.config), sort_keys=False).encode())
        digests = {path.name: sha256_file(path) for path in sorted(draft.iterdir()) if path.name != OWNER}
        facts: dict[str, Any] = {
            "format": FORMAT,
            "run_id": run_id,
            "kind": kind,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "first_shard": first_shard,
            "shards": sizes,
            "rejects": rejects,
            "inputs": sources.inputs,
            "recipe": sources.recipe,
            "versions": versions(),
            "computes": COMPUTES,
            "sha256": digests,
        }
        facts["checksum"] = _checksum(facts)
        write_new(draft / "run.json", (json.dumps(facts, indent=1) + "\n").encode())
        sync_directory(draft)
        os.rename(draft, target)
    except OSError as error:
        swept = error.errno == errno.ENOENT and not draft.exists()  # by one that finished the run meanwhile
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not swept:
            raise
        return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # it holds the plan, or what another process put there
                path.rmdir()
    (target / OWNER).unlink(missing_ok=True)
    sync_directory(run.root)
    return True


def _write_shards(draft: Path, shards: Iterable[Shard | Reject]) -> tuple[list[list[int]], int]:
    sizes = []
    rejects = 0
    with (draft / "rejects.jsonl").open("wb") as reject_file:
        for shard in shards:
            if isinstance(shard, Reject):
                line = to_json({"file": shard.source, "line": shard.line, "reason": shard.reason})
                reject_file.write(line.encode() + b"\n")
                rejects += 1
                continue
            write_new(shard_plan(draft, shard.index), _shard_lines(shard))
            sizes.append([len(shard.batches), sum(len(batch.prompts) for batch in shard.batches)])
        reject_file.flush()
        sync(reject_file.fileno())
    return sizes, rejects


def _shard_lines(shard: Shard) -> bytes:
    names = Prompt.__slots__
    lines = [
        to_json({"batch": batch.index} | {name: getattr(prompt, name) for name in names})
        for batch in shard.batches
        for prompt in batch.prompts
    ]
    return ("\n".join(lines) + "\n").encode()


def _nothing_usable(draft: Path, rejects: int) -> str:
    if not rejects:
        return "the prompt files hold no rows"
    with (draft / "rejects.jsonl").open("rb") as file:
        first = json.loads(file.readline())
    return f"none of the {rejects} rows can be used; the first: {first['file']}:{first['line']}: {first['reason']}"
