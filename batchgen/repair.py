"""Set damaged shards aside, so that the next run of the same command makes only these again.

python -m batchgen.repair RUN_DIR [--dry-run]

Nothing is deleted or overwritten: what is damaged goes to damaged/0001/ (0002, ...), with a note why. The index goes
first, because it would say that the run is done. Then goes the record of a shard's copy, and then its manifest, which
is its commit: if a repair is killed at any moment, each shard is either committed as before or not committed. A tar
that is left without its manifest is found by the next repair, and put out of the way by the next commit
(`shards.attempt.publish`). The copy itself is left alone: the next one replaces it.

An attempt that was stopped before the repair and wakes after it does no harm: it commits with its own files or not at
all. The files of the attempt that is set aside leave work/ too; those of any other attempt were swept when the shard
was committed, or are whole. The manifest is linked, so only one attempt wins.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from batchgen.console import run_dir_command, say
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, BatchgenError, BrokenRunError, UserError
from batchgen.files import is_plain, move, new_directory, sha256_file, sync_directory, to_json, write_new
from batchgen.paths import RunDir, why_file
from batchgen.plan.store import Plan, check_plan, load_plan
from batchgen.shards.attempt import advice, is_done, read_manifest
from batchgen.shards.copies import copiers
from batchgen.shards.leases import Lease, Watch, live_leases, read_lease
from batchgen.shards.records import Manifest
from batchgen.verify import check_index, check_shard, check_shards

_LOOK_AGAIN_S = 0.1


@dataclass
class Damage:
    """What is wrong with each shard and with the index, and what no repair can mend."""

    shards: dict[int, list[str]] = field(default_factory=dict)
    index: list[str] = field(default_factory=list)
    lasting: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)  # why copies of tars that left this disk could not be checked


def find_damage(plan: Plan, pending: Collection[int] = ()) -> Damage:
    """Everything that is wrong with the shards of a run that nobody works on. Reads every byte; changes nothing.

    Shards that are `pending` are taken to be sound: their commit was cut off, and any process can finish it.
    Raises BrokenRunError where a shard proves that a part of the plan is gone.
    """
    run = plan.run
    damage = Damage()
    committed = run.committed()
    planned = set(range(plan.shard_count))
    for shard in sorted(committed - planned):
        if (manifest := _manifest(run, shard)) is not None and manifest.get("run_id") == plan.run_id:
            raise BrokenRunError(
                f"{run.manifest(shard)} was made by this run but is not in its plan: a part of the plan is gone"
            )
        damage.shards[shard] = [f"{run.manifest(shard)} does not belong to any planned shard"]
    for shard, paths in run.shard_files().items():
        if shard not in committed:
            damage.shards[shard] = [f"{paths[0]} has no manifest, so nothing proves it"]
    keys: Counter[str] = Counter()
    for checked in check_shards(plan, sorted((committed & planned).difference(pending))):
        damage.unreached += checked.unreached
        if checked.problems:
            # What to do is being done.
            damage.shards[checked.shard] = [one.removesuffix(f": {advice(run)}") for one in checked.problems]
        else:
            keys.update(checked.keys)
    damage.lasting = [f"key {key} appears {count} times" for key, count in keys.items() if count > 1]
    if os.path.lexists(run.index) and not damage.shards and committed == planned and not pending:
        damage.index = check_index(plan) if is_plain(run.index) else [f"{run.index} is not a plain file"]
    return damage


def _manifest(run: RunDir, shard: int) -> Manifest | None:
    """A shard's manifest; None where it is missing or damaged."""
    try:
        return read_manifest(run, shard) if is_plain(run.manifest(shard)) else None
    except (BatchgenError, OSError, ValueError):
        return None


def _pending(run: RunDir) -> list[int]:
    """The shards whose commit was cut off after the manifest was linked, and whose tars wait complete in work/."""
    return [shard for shard in sorted({files.shard for files in run.attempts()}) if _can_publish(run, shard)]


def _can_publish(run: RunDir, shard: int) -> bool:
    if os.path.lexists(run.tar(shard)) and not is_plain(run.tar(shard)):
        return False
    manifest = _manifest(run, shard)
    return manifest is not None and any(
        is_plain(files.tar) and sha256_file(files.tar) == manifest.get("sha256")
        for files in run.attempts(shard)
        if files.attempt == manifest.get("attempt")
    )


def wait_until_idle(plan: Plan) -> Watch:
    """Make sure that no worker works on the run. Raises UserError where one does.

    It returns at once where no lease is left, or only leases of processes that are gone. Otherwise it watches the
    leases as workers do: a lease is live when it is written again, and stale when it was silent too long (leases.py).
    """
    watch = Watch(plan.config.launch.lease_timeout_s)
    first = _live(plan.run, watch)
    if first:
        names = ", ".join(sorted({read_lease(content).worker for content in first.values()}))
        say(f"workers may be running ({names}): watching their leases for {watch.timeout_s:g} s, or ten of their steps")
    now = first
    while now:
        if now.items() - first.items():
            raise UserError(f"workers are at work on {plan.run.root}: nothing was changed. Stop them, then repair")
        time.sleep(_LOOK_AGAIN_S)
        now = _live(plan.run, watch)
    return watch


def _live(run: RunDir, watch: Watch) -> dict[Path, bytes]:
    return live_leases(run, watch) | copiers(run, watch)


def set_aside(plan: Plan, damage: Damage, watch: Watch) -> Path:
    """Move what is damaged to a new directory; return it. Raises UserError where a worker came in between."""
    run = plan.run
    place = new_directory(run.damaged)
    if os.path.lexists(run.index):
        move(run.index, place / run.index.name)
    for shard, problems in sorted(damage.shards.items()):
        # The lease keeps workers and other repairs away; what they did before we held it is checked again.
        lease = Lease.take(run, shard, "repair", watch)
        if lease is None:
            raise UserError(f"a worker began with shard {shard}: stop it, then repair the rest")
        try:
            if not _is_mended(plan, shard):
                _move_shard(run, shard, problems, place)
                _tell(shard, problems, "set aside")
        finally:
            lease.release()
    for problem in damage.index:
        print(f"{run.index.name} set aside: {problem}")
    return place


def _is_mended(plan: Plan, shard: int) -> bool:
    if shard not in plan.run.committed():
        return shard not in plan.run.shard_files()
    return shard < plan.shard_count and not check_shard(plan, shard).problems


def _move_shard(run: RunDir, shard: int, problems: list[str], place: Path) -> None:
    """Move the manifest first and the tar last: as long as anything is left to do, the next repair sees it."""
    in_shards = run.shard_files().get(shard, [])
    manifests = [path for path in in_shards if path.suffix == ".json"]
    tars = [path for path in in_shards if path.suffix == ".tar"]
    manifest = _manifest(run, shard)
    # The manifest says that these are the same damaged bytes. If their writer is only stopped, it finds them gone.
    attempts = [
        path
        for files in run.attempts(shard)
        if manifest is not None and files.attempt == manifest.get("attempt")
        for path in (files.manifest, files.journal, files.tar)
    ]
    record = run.copy_record(shard)  # it goes before the manifest: without it, a tar that is gone is damage
    paths = [path for path in [record, *manifests, run.memory_log(shard), *attempts, *tars] if os.path.lexists(path)]
    note = {
        "shard": shard,
        "problems": problems,
        "files": [path.relative_to(run.root).as_posix() for path in paths],
        "set_aside_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_new(why_file(place, shard), to_json(note).encode() + b"\n")
    sync_directory(place)
    for path in paths:
        with suppress(FileNotFoundError):  # an attempt that just lost removed its own files
            move(path, place / (f"copy-{path.name}" if path == record else path.name))


def _load(run: RunDir) -> Plan:
    plan = load_plan(run)
    for path in (run.shards, run.work, run.leases, run.damaged, run.memory_logs.parent, run.memory_logs):
        if path.is_symlink():
            raise UserError(f"{path} is a symbolic link, which repair does not follow: put the directory itself there")
    try:
        check_plan(plan)
    except BrokenRunError as error:
        raise BrokenRunError(
            f"{error}. No shard can be repaired without a sound plan, and none was set aside"
        ) from error
    return plan


def _tell(shard: int, problems: list[str], verb: str) -> None:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    print(f"shard {shard} {verb}: {' '.join(problems[0].split())}{more}")


def _code(damage: Damage) -> int:
    for problem in damage.lasting:
        say(f"{problem} in the plan: no repair changes that")
    if damage.unreached:
        say(f"{len(damage.unreached)} copies could not be checked, and were left as they are: {damage.unreached[0]}")
    return EXIT_BROKEN if damage.lasting else EXIT_INTERRUPTED if damage.unreached else EXIT_WHOLE


def rehearse(run: RunDir) -> int:
    """Say what `repair` would do; return the exit code. Raises BatchgenError."""
    plan = _load(run)
    wait_until_idle(plan)
    damage = find_damage(plan, _pending(run))
    for shard, problems in sorted(damage.shards.items()):
        _tell(shard, problems, "would be set aside")
    for problem in damage.index:
        print(f"{run.index.name} would be set aside: {problem}")
    print(f"{run.root}: {len(damage.shards)} of {plan.shard_count} shards are damaged; dry run: nothing was changed")
    return _code(damage)


def repair(run: RunDir) -> int:
    """Set damaged shards aside; return the exit code. Raises BatchgenError."""
    plan = _load(run)
    watch = wait_until_idle(plan)
    run.create_directories()
    for shard in _pending(run):
        with suppress(BatchgenError, OSError):  # then the shard is damaged, and `find_damage` finds it
            is_done(run, shard)
    damage = find_damage(plan)
    if damage.shards or damage.index:
        place = set_aside(plan, damage, watch)
        what = f"{len(damage.shards)} of {plan.shard_count} shards" if damage.shards else run.index.name
        print(f"{run.root}: {what} set aside in {place}; the command that started the run makes them again")
    else:
        print(f"{run.root}: no shard is damaged; nothing was set aside")
    return _code(damage)


if __name__ == "__main__":
    sys.exit(run_dir_command("repair", "Set damaged shards aside so that they are made again.", repair, rehearse))
