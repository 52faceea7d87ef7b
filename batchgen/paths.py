"""RunDir: the only place that knows the file names of a run; `plan_dir` has those of its plans."""

import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchgen.plan_dir import PlanDir

_SHARD_FILE = re.compile(r"(\d{6,})\.(json|tar)")
_ATTEMPT_FILE = re.compile(r"(\d{6,})\.([0-9a-f]{32})\.(tar|jsonl|json|at)")
_FAILURE_FILE = re.compile(r"\d{6,}\.[0-9a-f]{32}\.json")
_EXTENSION_DIR = re.compile(r"plan-(\d{3,})")
_DRAFT_DIR = re.compile(r"plan\.[0-9a-f]{32}(\.swept)*")
_MARK = "at-work."


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """The files of one worker's try at one shard. Nobody else writes them. `at` lists the rows under way."""

    shard: int
    attempt: str
    tar: Path
    journal: Path
    manifest: Path
    at: Path


@dataclass(frozen=True, slots=True)
class RunDir:
    """The directory of one run and the names in it."""

    root: Path

    @property
    def plan(self) -> PlanDir:
        """The first plan; it exists only whole."""
        return PlanDir(self.root / "plan")

    def plans(self) -> list[PlanDir]:
        """The plan and its extensions (plan-001, ...), in the order in which they were added."""
        numbers = sorted(int(match[1]) for match in map(_EXTENSION_DIR.fullmatch, _names(self.root)) if match)
        return ([self.plan] if self.plan.root.is_dir() else []) + [self.extension(number) for number in numbers]

    def extension(self, number: int) -> PlanDir:
        """The `number`-th extension of the plan, counted from 1."""
        return PlanDir(self.root / f"plan-{number:03d}")

    def drafts(self) -> list[PlanDir]:
        """The drafts of plans, finished or not, and those that are being removed."""
        return [PlanDir(path) for path in self.root.glob("plan.*") if _DRAFT_DIR.fullmatch(path.name)]

    def word(self, group: str) -> Path:
        """What rank 0 of a group tells the other ranks; its name begins as a draft's does."""
        return self.root / f"plan.group-{group}.json"

    @property
    def free(self) -> Path:
        """The settings that may change on a resume, as the last command set them; workers read them here."""
        return self.root / "free.yaml"

    @property
    def replaced(self) -> Path:
        """Plans that gave way to another before any work on them began, each in a directory named by its run id."""
        return self.root / "replaced"

    @property
    def policies(self) -> Path:
        """The frozen policies, one file for each device kind and size."""
        return self.root / "policies"

    @property
    def failures(self) -> Path:
        """One file for each crash of a worker; made when there is one."""
        return self.root / "failures"

    def failure(self, shard: int, attempt: str) -> Path:
        """The crash that ended an attempt."""
        return self.failures / f"{shard:06d}.{attempt}.json"

    def failure_files(self) -> list[Path]:
        """The crashes that count."""
        return [self.failures / name for name in _names(self.failures) if _FAILURE_FILE.fullmatch(name)]

    @property
    def shards(self) -> Path:
        """Committed tars and their manifests."""
        return self.root / "shards"

    @property
    def memory_logs(self) -> Path:
        """The memory log of each committed shard."""
        return self.root / "logs" / "memory"

    @property
    def worker_logs(self) -> Path:
        """Events of the workers, and what third parties print."""
        return self.root / "logs" / "workers"

    def worker_log(self, name: str) -> Path:
        """The events of one worker."""
        return self.worker_logs / f"{name}.jsonl"

    def worker_output(self, name: str) -> Path:
        """What one worker and its libraries print."""
        return self.worker_logs / f"{name}.log"

    def event_logs(self) -> list[Path]:
        """The events of all workers, one file each."""
        return sorted(self.worker_logs.glob("*.jsonl")) if self.worker_logs.is_dir() else []

    @property
    def leases(self) -> Path:
        """Who works on what. Leases only save double work."""
        return self.root / "leases"

    def new_mark(self) -> Path:
        """A name in leases/ by which a process states that it works by the plan."""
        return self.leases / f"{_MARK}{uuid.uuid4().hex}"

    def marks(self) -> list[Path]:
        """The marks of the processes that work by the plan, or did."""
        return list(self.leases.glob(f"{_MARK}*"))

    def shard_leases(self) -> list[Path]:
        """The leases on shards, by the shard's number."""
        leases = self.leases
        return [leases / name for name in sorted(_names(leases)) if name.isdecimal()]

    @property
    def finish_lease(self) -> Path:
        """The lease of the process that finishes the run, where several see that all is made."""
        return self.leases / "finish"

    @property
    def work(self) -> Path:
        """Unfinished attempts."""
        return self.root / "work"

    @property
    def index(self) -> Path:
        """File, bytes, samples and digest of every shard; written when all are committed."""
        return self.root / "index.json"

    @property
    def report(self) -> Path:
        """The page that shows the run; it and the next two are made again at any time."""
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        """What the page shows, without the pictures."""
        return self.root / "report.json"

    @property
    def contact_sheet(self) -> Path:
        """Pictures of the run in one image."""
        return self.root / "contact_sheet.png"

    @property
    def samples_table(self) -> Path:
        """One row for each planned image."""
        return self.root / "samples.parquet"

    @property
    def card(self) -> Path:
        """The data set's card, which a person may edit."""
        return self.root / "README.md"

    @property
    def damaged(self) -> Path:
        """Damaged files that were set aside, in numbered directories; no command reads them."""
        return self.root / "damaged"

    @property
    def slurm(self) -> Path:
        """What was submitted to SLURM."""
        return self.root / "slurm"

    @property
    def stop(self) -> Path:
        """A note that asks all workers to end after what is under way; the next command on the run removes it."""
        return self.root / "stop.json"

    @property
    def copies(self) -> Path:
        """One record for each shard whose copy elsewhere was checked."""
        return self.root / "copies"

    def copy_record(self, shard: int) -> Path:
        """The record of the checked copy of a shard."""
        return self.copies / f"{shard:06d}.json"

    def create_directories(self) -> None:
        """Create the directories that workers write to, where they are missing."""
        for directory in (self.policies, self.shards, self.memory_logs, self.worker_logs, self.leases, self.work):
            directory.mkdir(parents=True, exist_ok=True)

    def tar(self, shard: int) -> Path:
        """The committed tar."""
        return self.shards / f"{shard:06d}.tar"

    def manifest(self, shard: int) -> Path:
        """The manifest whose presence is the commit."""
        return self.shards / f"{shard:06d}.json"

    def memory_log(self, shard: int) -> Path:
        """The committed attempt's journal."""
        return self.memory_logs / f"{shard:06d}.jsonl"

    def lease(self, shard: int) -> Path:
        """The lease on a shard."""
        return self.leases / f"{shard:06d}"

    def policy(self, device_kind: str, width: int, height: int) -> Path:
        """The policy frozen for a kind of device and a size in pixels."""
        return self.policies / f"{_slug(device_kind)}-{width}x{height}.json"

    def card_policy(self, device_kind: str, width: int, height: int, card: str) -> Path:
        """The policy of one card of that kind that cannot hold the frozen policy."""
        return self.policies / f"{_slug(device_kind)}-{width}x{height}.{_slug(card)}.json"

    def figures(self, device_kind: str, width: int, height: int) -> Path:
        """The figures that policies of that kind and size are chosen by."""
        return self.policies / f"{_slug(device_kind)}-{width}x{height}.figures.json"

    def sizes_with_figures(self, device_kind: str) -> list[tuple[int, int]]:
        """The sizes (width, height) in pixels that have figures for that kind of device."""
        names = re.compile(rf"{re.escape(_slug(device_kind))}-(\d+)x(\d+)\.figures\.json")
        found = (names.fullmatch(path.name) for path in self.policies.glob("*.figures.json"))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def probe_lease(self, device_kind: str) -> Path:
        """The lease of the one worker that measures on that kind of device."""
        return self.leases / f"probe-{_slug(device_kind)}"

    def attempt(self, shard: int, attempt: str) -> AttemptFiles:
        """The files of one attempt."""
        paths = (self.work / f"{shard:06d}.{attempt}.{kind}" for kind in ("tar", "jsonl", "json", "at"))
        return AttemptFiles(shard, attempt, *paths)

    def attempts(self, shard: int | None = None) -> list[AttemptFiles]:
        """The attempts that have any file in work/, of one shard or of all."""
        matches = filter(None, map(_ATTEMPT_FILE.fullmatch, _names(self.work)))
        found = {(int(match[1]), match[2]) for match in matches if shard in (None, int(match[1]))}
        return [self.attempt(*names) for names in sorted(found)]

    def committed(self) -> set[int]:
        """The shards that have a manifest."""
        return self.listed()[0]

    def tars(self) -> set[int]:
        """The shards that have a tar under its final name."""
        return self.listed()[1]

    def listed(self) -> tuple[set[int], set[int]]:
        """The shards that have a manifest, and those that have a tar, by one look at shards/."""
        found = [one.groups() for one in map(_SHARD_FILE.fullmatch, _names(self.shards)) if one]
        return {int(one) for one, kind in found if kind == "json"}, {int(one) for one, kind in found if kind == "tar"}

    def shard_files(self) -> dict[int, list[Path]]:
        """Every path in shards/ that is named like a manifest or a tar, by the shard's number; manifests come first."""
        found: dict[int, list[Path]] = {}
        matches = filter(None, map(_SHARD_FILE.fullmatch, _names(self.shards)))
        for match in sorted(matches, key=lambda match: match[2]):
            found.setdefault(int(match[1]), []).append(self.shards / match[0])
        return found


def _names(directory: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(directory)
    return []


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()


def why_file(place: Path, shard: int) -> Path:
    """The note in a directory of damaged/ that says why a shard was set aside there."""
    return place / f"{shard:06d}.why.json"


def struck(failure: Path) -> Path:
    """The name of a crash that no longer counts."""
    return failure.with_suffix(".struck")
