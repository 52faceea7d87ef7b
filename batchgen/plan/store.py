"""The plan on disk: all shards of a run, fixed before the first image, and what they were made from.

A plan directory is written completely under another name and then renamed, so a second command uses the plan that is
there. A run has one plan, and an extension (plan-001, ...) for each time that prompts were added or images retried.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from batchgen.config.schema import Config
from batchgen.errors import BrokenRunError, UserError
from batchgen.files import read, sha256_bytes, sha256_file, sync_directory, write_new
from batchgen.machine.versions import versions
from batchgen.paths import RunDir
from batchgen.plan.contents import write_prompts, write_shards
from batchgen.plan.drafts import new_draft
from batchgen.plan.free import with_free
from batchgen.plan.inputs import Input, newest
from batchgen.plan.nearby import no_run
from batchgen.plan.recipe import COMPUTES, as_planned
from batchgen.plan.records import SAMPLE_FORM, LoraFile, RunFacts, ShardSize, checksum, parse_shard
from batchgen.plan_dir import PlanDir
from batchgen.prompts import READS
from batchgen.types import Prompt, Reject, Shard

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """One plan directory: the first plan of a run, or an extension of it."""

    files: PlanDir
    kind: str  # "run", "extend" or "retry"
    first_shard: int
    shards: list[ShardSize]
    rejects: int
    limit: int | None  # job.limit
    inputs: list[dict[str, Any]]
    recipe: dict[str, Any]
    sample_form: int  # `records.SAMPLE_FORM`; that of the first plan holds
    run_id: str
    sha256: dict[str, str]  # of its files, by name
    computes: int
    reads: int
    loras: list[LoraFile]


@dataclass(frozen=True, slots=True)
class Plan:
    """All images that a run makes, and the configuration that they are made with."""

    run: RunDir
    config: Config  # as planned, with the free settings of the last command
    planned: Config
    segments: list[Segment]

    @property
    def run_id(self) -> str:
        """The run's identity, which never changes."""
        return self.segments[0].run_id

    @property
    def recipe(self) -> dict[str, Any]:
        """What must not change on a resume, as the first plan states it."""
        return self.segments[0].recipe

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Name, bytes and sha256 of every prompt file as last planned, in order of their numbers in the keys."""
        return newest([segment.inputs for segment in self.of_rows])

    @property
    def of_rows(self) -> list[Segment]:
        """The plan and its extensions by rows; a retry has none of its own."""
        return [segment for segment in self.segments if segment.kind != "retry"]

    @property
    def limit(self) -> int | None:
        """The `job.limit` that rows were last planned with."""
        return self.of_rows[-1].limit

    @property
    def computes(self) -> int:
        """The way of computing that the run was begun with (`recipe.COMPUTES`)."""
        return min(segment.computes for segment in self.segments)

    @property
    def reads(self) -> int:
        """The version of the reader (`prompts.READS`) for all prompt files of the run."""
        return self.segments[0].reads

    @property
    def loras(self) -> list[LoraFile]:
        """The LoRA files of all rows."""
        return list(dict.fromkeys(one for segment in self.of_rows for one in segment.loras))

    @property
    def sizes(self) -> list[ShardSize]:
        """How much each shard holds, by its index."""
        return [size for segment in self.segments for size in segment.shards]

    @property
    def shard_count(self) -> int:
        """How many shards are planned."""
        return sum(len(segment.shards) for segment in self.segments)

    @property
    def images(self) -> int:
        """How many different images are planned; a retry adds none."""
        return sum(size.images for segment in self.of_rows for size in segment.shards)

    def shard(self, index: int) -> tuple[Shard, str]:
        """A shard and its fingerprint, the sha256 of its file. Raises BrokenRunError."""
        path = self._segment(index).files.shard(index)
        try:
            data = read(path)
            digest = sha256_bytes(data)
            if self.digest(index) != digest:
                raise ValueError("it has changed since it was planned: its sha256 differs")
            return parse_shard(index, data), digest
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BrokenRunError(f"{path} of the plan cannot be read: {error}") from error

    def digest(self, index: int) -> str:
        """The fingerprint of a shard as the plan states it; its file is not read. Raises KeyError."""
        return self._segment(index).sha256[self._segment(index).files.shard(index).name]

    def _segment(self, index: int) -> Segment:
        return next(one for one in reversed(self.segments) if one.first_shard <= index)

    def tried_again(self, index: int) -> set[str]:
        """The keys that a later retry planned: if this shard has to be made again, the retry makes them."""
        later = (one for one in self.segments if one.kind == "retry" and one.first_shard > index)
        shards = (one.first_shard + offset for one in later for offset in range(len(one.shards)))
        return {key for shard in shards for key in self.shard(shard)[0].keys}

    def prompts(self) -> Iterator[Prompt]:
        """Every planned prompt, once: a retry adds none."""
        for segment in self.of_rows:
            yield from self.prompts_of(segment)

    def prompts_of(self, segment: Segment) -> Iterator[Prompt]:
        """The prompts of the plan or of one extension."""
        for offset in range(len(segment.shards)):
            for batch in self.shard(segment.first_shard + offset)[0].batches:
                yield from batch.prompts


def load_plan(run: RunDir) -> Plan:
    """The plan of a run. Raises UserError where there is none, BrokenRunError where it cannot be read."""
    plans = run.plans()
    if not plans or plans[0] != run.plan:
        raise UserError(no_run(run))
    try:
        segments = [_load_segment(files) for files in plans]
        data = run.plan.config.read_bytes()
        if segments[0].sha256[run.plan.config.name] != sha256_bytes(data):
            raise ValueError(f"{run.plan.config.name} has changed since it was planned: its sha256 differs")
        planned = as_planned(yaml.safe_load(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        why = f"{error} is missing in it" if isinstance(error, KeyError) else error
        raise BrokenRunError(
            f"the plan in {run.root} cannot be read: {why}. Put its files back, or start a new run by run_dir=DIR"
        ) from error
    return Plan(run, with_free(run, planned), planned, segments)


def _load_segment(files: PlanDir) -> Segment:
    facts: RunFacts = json.loads(files.facts.read_bytes())
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']} belongs to another version of batchgen")
    if facts.get("checksum") != checksum(facts):
        raise ValueError(f"{files.facts} is damaged, or was written by a batchgen that wrote no checksums")
    return Segment(
        files,
        kind=facts["kind"],
        first_shard=facts["first_shard"],
        shards=[ShardSize(*size) for size in facts["shards"]],
        rejects=facts["rejects"],
        limit=facts["limit"] if "limit" in facts else facts["recipe"].get("job.limit"),
        inputs=facts["inputs"],
        recipe=facts["recipe"],
        sample_form=facts.get("sample_form", 1),
        run_id=facts["run_id"],
        sha256=facts["sha256"],
        computes=facts.get("computes", 1),
        reads=facts.get("reads", 1),
        loras=[LoraFile(*one) for one in facts.get("loras", ())],
    )


def run_id_of(run: RunDir) -> str | None:
    """The run id in the plan that is there now; None where there is no plan that can be read."""
    try:
        return str(json.loads(run.plan.facts.read_bytes())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_plan(plan: Plan) -> None:
    """Prove that the plan has not changed since it was written. Reads all of it. Raises BrokenRunError."""
    first_shard = 0
    for segment in plan.segments:
        directory = segment.files.root
        if (segment.first_shard, segment.run_id) != (first_shard, plan.run_id):
            raise BrokenRunError(
                f"{directory} does not continue where the plan before it ends: a plan is missing or belongs to "
                "another run"
            )
        for name, digest in segment.sha256.items():
            try:
                sound = sha256_file(directory / name) == digest
            except OSError as error:
                raise BrokenRunError(f"{directory / name} of the plan cannot be read: {error.strerror}") from error
            if not sound:
                raise BrokenRunError(f"{directory / name} of the plan is damaged")
        first_shard += len(segment.shards)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a plan is made from: the configuration, the prompt files and what must not change on a resume."""

    config: Config
    inputs: list[Input]
    recipe: dict[str, Any]
    reads: int = READS


def save_plan(
    run: RunDir,
    target: PlanDir,
    kind: str,
    first_shard: int,
    run_id: str,
    sources: Sources,
    shards: Iterable[Shard | Reject],
) -> bool:
    """Write a plan directory and name it `target`. False if another process was first, or swept the draft away.

    Where `shards` raises, nothing is left on the disk.
    """
    made = [path for path in (run.root, *run.root.parents) if not path.exists()]
    draft = new_draft(target)
    try:
        written = write_shards(draft, shards)
        entries = write_prompts(draft, target, sources.inputs)
        write_new(draft.config, yaml.safe_dump(asdict(sources.config), sort_keys=False).encode())
        paths = sorted(path for path in draft.root.rglob("*") if path.is_file() and path != draft.owner)
        digests = {path.relative_to(draft.root).as_posix(): sha256_file(path) for path in paths}
        facts: RunFacts = {
            "format": FORMAT,
            "run_id": run_id,
            "kind": kind,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "first_shard": first_shard,
            "shards": written.sizes,
            "rejects": written.rejects,
            "limit": sources.config.job.limit,
            "inputs": entries,
            "loras": written.loras,
            "recipe": sources.recipe,
            "sample_form": SAMPLE_FORM,
            "versions": versions(),
            "computes": COMPUTES,
            "reads": sources.reads,
            "sha256": digests,
        }
        facts["checksum"] = checksum(facts)
        write_new(draft.facts, (json.dumps(facts, indent=1) + "\n").encode())
        sync_directory(draft.root)
        os.rename(draft.root, target.root)
    except OSError as error:
        swept = error.errno == errno.ENOENT and not draft.root.exists()  # by a command that finished the run meanwhile
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not swept:
            raise
        return False
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # it holds the plan, or what another process put there
                path.rmdir()
    target.owner.unlink(missing_ok=True)
    sync_directory(run.root)
    return True
