"""What is in of a run: the one answer that the run, its workers, `status` and the display go by.

A shard is in when its manifest is there, of this run and plan, and its tar with the size that the manifest states.
Nothing is hashed here: `verify` does that.
"""

from dataclasses import dataclass
from functools import cache

from batchgen.errors import BrokenRunError
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.attempt import read_manifest, tar_problem

_NAMED = 3  # of the broken shards, in a message


@dataclass(frozen=True, slots=True)
class Stock:
    """The shards of a plan: those that are in, those committed and come to harm, with how, and those to be made."""

    whole: frozenset[int]
    broken: dict[int, str]
    open: frozenset[int]

    def harm(self) -> str | None:
        """What is broken, in a few words; None where nothing is."""
        named = list(self.broken.values())[:_NAMED]
        more = f" and {len(self.broken) - len(named)} more" if len(self.broken) > len(named) else ""
        return "; ".join(named) + more if named else None

    def complaint(self, run: RunDir) -> str:
        """What is broken, and what to do, in two lines."""
        return (
            f"{run.root} is broken: {self.harm()}. Nothing of it is made again unasked.\n"
            f"If you moved the tars, put them back. If they are lost, python -m batchgen.repair {run.root} "
            "sets these shards aside, and the same command then makes them again"
        )


@dataclass(frozen=True, slots=True)
class Stated:
    """What a manifest states of its shard: the attempt, the tar's bytes and digest, how many images came out.

    `made_by`: the run, and the sha256 of the shard's plan.
    """

    made_by: tuple[str, str]
    attempt: str
    tar_bytes: int
    sha256: str
    good: int
    failed: int


def stated_of(run: RunDir, shard: int) -> Stated:
    """What the manifest of a committed shard states. Raises BrokenRunError, or FileNotFoundError."""
    facts = run.manifest(shard).stat()
    return _read(run, shard, facts.st_ino, facts.st_mtime_ns)


@cache
def _read(run: RunDir, shard: int, inode: int, written_ns: int) -> Stated:
    # A committed manifest never changes: a process reads each once, and again only if it is another file.
    manifest = read_manifest(run, shard)
    try:
        samples = manifest["samples"]
        good = sum(sample["status"] == "ok" for sample in samples)
        made_by = (manifest["run_id"], manifest["plan_sha256"])
        return Stated(made_by, manifest["attempt"], manifest["bytes"], manifest["sha256"], good, len(samples) - good)
    except (KeyError, TypeError) as error:
        raise BrokenRunError(f"{run.manifest(shard)} was not written by batchgen") from error


def take_stock(plan: Plan) -> Stock:
    """What is in of the plan, by manifests and the sizes of tars. Changes nothing; raises OSError."""
    planned = frozenset(range(len(plan.sizes)))
    committed = planned & plan.run.committed()
    problems = {shard: _problem(plan, shard) for shard in sorted(committed)}
    broken = {shard: problem for shard, problem in problems.items() if problem is not None}
    return Stock(committed - broken.keys(), broken, planned - committed)


def glance(plan: Plan) -> frozenset[int]:
    """The shards that are in as far as names tell: quick enough to be asked twice a second of a large run."""
    return frozenset(range(len(plan.sizes))) & plan.run.committed() & plan.run.tars()


def _problem(plan: Plan, shard: int) -> str | None:
    run = plan.run
    try:
        stated = stated_of(run, shard)
    except (BrokenRunError, FileNotFoundError):  # under another spelling of its number, say
        return f"shard {shard:06d}'s manifest is damaged"
    if stated.made_by != (plan.run_id, plan.digest(shard)):
        return f"shard {shard:06d}'s manifest is of another run or plan"
    problem = tar_problem(run, shard, stated.tar_bytes)
    return None if problem is not None and _waits(run, shard, stated) else problem


def _waits(run: RunDir, shard: int, stated: Stated) -> bool:
    """Whether a commit was cut off, and its tar waits in work/ for somebody to publish it."""
    try:
        return run.attempt(shard, stated.attempt).tar.stat().st_size == stated.tar_bytes
    except FileNotFoundError:
        return False
