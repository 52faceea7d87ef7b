"""Prove that a run is whole, or say what is wrong. It hashes every shard, decodes every image and looks for every key.

python -m batchgen.verify RUN_DIR [--copies]

Of a tar that left this disk its copy is checked, by what the store says of it; --copies reads every copy.
"""

import io
import json
import os
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from batchgen.console import run_dir_command, say
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES, BatchgenError
from batchgen.events import read_events
from batchgen.files import is_plain, sha256_bytes, sha256_file
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.shards.attempt import read_manifest
from batchgen.shards.copies import ask_store, is_elsewhere, record_of, record_path, to_copy
from batchgen.shards.index import index_of, is_current, read_index
from batchgen.shards.journal import read_journal
from batchgen.shards.progress import failed_samples, remedy_of_damage
from batchgen.shards.records import Manifest
from batchgen.shards.tars import read_samples
from batchgen.types import Prompt
from batchgen.units import count

# Image.open would refuse images of more than 179 million pixels, whether they were planned or not.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "png": PngImageFile,
    "jpg": JpegImageFile,
    "webp": WebPImageFile,
}
_SHOWN_PROBLEMS = 20
_FLAGS = {"--copies": "read every copy of a shard that output.copy_to made, and compare it"}
_NO_INDEX = "index.json is not written yet, or lists fewer shards: the same command writes it"


@dataclass
class Findings:
    """What `verify` saw."""

    images: int = 0
    missing_shards: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # no image is touched by these
    keys: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)  # how many were checked, by where and how
    unreached: list[str] = field(default_factory=list)  # why copies could not be checked


def verify(plan: Plan, copies: bool = False) -> Findings:
    """Check everything that a run states about itself. Reads every byte; changes nothing. `copies`: those too."""
    findings = Findings()
    committed = plan.run.committed()
    findings.missing_shards = [shard for shard in range(plan.shard_count) if shard not in committed]
    findings.problems += [
        f"{plan.run.manifest(shard)} does not belong to any planned shard"
        for shard in sorted(committed)
        if shard >= plan.shard_count
    ]
    present = [shard for shard in range(plan.shard_count) if shard in committed]
    for shard in check_shards(plan, present, copies):
        findings.problems += shard.problems
        findings.copies.update(shard.copy)
        findings.unreached += shard.unreached
        findings.warnings += shard.warnings
        findings.keys.update(shard.keys)
    findings.images = sum(findings.keys.values())
    findings.problems += [f"key {key} appears {count} times" for key, count in findings.keys.items() if count > 1]
    if not findings.missing_shards and not findings.problems:
        findings.problems += check_index(plan)
        findings.warnings += [] if is_current(plan) else [_NO_INDEX]
    return findings


@dataclass
class Checked:
    """What was found in a committed shard: problems of its images, warnings about its log, and its tar's keys."""

    shard: int
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    copy: list[str] = field(default_factory=list)  # where and how its copy was checked, if it was
    unreached: list[str] = field(default_factory=list)  # why its copy could not be checked


def check_shards(plan: Plan, shards: Iterable[int], copies: bool = False) -> Iterator[Checked]:
    """What `check_shard` finds in each of these committed shards, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and decoding leave Python free
        yield from pool.map(lambda shard: check_shard(plan, shard, copies), shards)


def check_shard(plan: Plan, shard: int, copies: bool = False) -> Checked:
    """Check a committed shard: manifest, tar, every image, the memory log; with `copies` all bytes of its copy, too.

    A file that the disk cannot read is a problem; a file that this user may not read raises PermissionError.
    """
    found = _check_shard(plan, shard, copies)
    # A tar may have left this disk while it was read.
    return _check_shard(plan, shard, copies) if found.problems and not plan.run.tar(shard).exists() else found


def _check_shard(plan: Plan, shard: int, copies: bool) -> Checked:
    found = Checked(shard)
    files = (plan.run.manifest(shard), plan.run.tar(shard))
    for path in files:  # a link is not followed: its target does not belong to the run
        if os.path.lexists(path) and not is_plain(path):
            found.problems = [f"{path} is not a plain file"]
            return found
    try:
        _check_files(plan, found, copies)
    except PermissionError:
        raise
    except (BatchgenError, OSError) as error:
        found.problems = [str(error)]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        found.problems = [f"{files[0]} was not written by batchgen: {error!r}"]
    return found


def _check_files(plan: Plan, found: Checked, copies: bool) -> None:
    shard, path = found.shard, plan.run.tar(found.shard)
    manifest = read_manifest(plan.run, shard)
    planned, digest = plan.shard(shard)
    if (manifest["run_id"], manifest["plan_sha256"]) != (plan.run_id, digest):
        found.problems.append(f"{plan.run.manifest(shard)} belongs to another run or plan")
        return
    if [sample["key"] for sample in manifest["samples"]] != planned.keys:
        found.problems.append(f"shard {shard}: the manifest lists keys other than the planned ones")
        return
    has_left = not path.is_file() and is_elsewhere(plan.run, shard, manifest["attempt"], manifest["bytes"])
    if has_left or copies:
        _check_copy(plan.run, found, manifest, copies)
    if has_left:
        found.keys += [sample["key"] for sample in manifest["samples"] if sample["status"] == "ok"]
        found.warnings += _check_log(plan.run, manifest)
        return
    if not path.is_file():
        found.problems.append(f"{path} is missing, but its manifest is there")
        return
    if path.stat().st_size != manifest["bytes"] or sha256_file(path) != manifest["sha256"]:
        found.problems.append(
            f"{path} is not the file that was committed: its size or sha256 differs from the manifest"
        )
        return
    prompts = {prompt.key: prompt for batch in planned.batches for prompt in batch.prompts}
    expected = [sample for sample in manifest["samples"] if sample["status"] == "ok"]
    try:
        for place, (key, files) in enumerate(read_samples(path)):
            found.keys.append(key)
            if place >= len(expected) or expected[place]["key"] != key:
                found.problems.append(f"shard {shard}: {key} is in the tar but is not next in the manifest")
                break
            problem = _check_sample(prompts[key], files, expected[place]["sha256"], plan.config.output.format)
            found.problems += [f"shard {shard}: {key}: {problem}"] if problem else []
    except (tarfile.TarError, OSError) as error:
        found.problems.append(f"{path} cannot be read: {error}")
    if len(found.keys) < len(expected):
        found.problems.append(f"shard {shard}: {len(expected) - len(found.keys)} samples of the manifest are missing")
    found.warnings += _check_log(plan.run, manifest)


def _check_copy(run: RunDir, found: Checked, manifest: Manifest, deep: bool) -> None:
    record = record_of(run, found.shard)
    if record is None:
        return  # `_copies_lack` counts it
    if (record["attempt"], record["sha256"]) != (manifest["attempt"], manifest["sha256"]):
        path = record_path(run, found.shard)
        found.problems.append(f"{path} is about another attempt: remove it, and the same command copies it again")
        return
    asked = ask_store(run, record, deep)
    found.problems += [] if asked.problem is None else [f"shard {found.shard}: {asked.problem}"]
    found.unreached += [] if asked.unreached is None else [asked.unreached]
    found.copy += [asked.how] if asked.problem is None and asked.unreached is None else []


def _check_sample(prompt: Prompt, files: dict[str, bytes], digests: dict[str, str], image_format: str) -> str | None:
    if {name: sha256_bytes(data) for name, data in files.items()} != digests:
        return "its files differ from those in the manifest"
    try:
        about = json.loads(files["json"])
        with _READERS[image_format](io.BytesIO(files[image_format])) as image:
            size = image.size
            if size == (prompt.width, prompt.height):  # any other size might be a bomb: it is not decoded
                image.load()
    except (KeyError, ValueError, OSError, SyntaxError, IndexError, TypeError, struct.error) as error:
        return f"its image or JSON cannot be read: {error}"
    if size != (prompt.width, prompt.height):
        return f"its image is {size[0]}x{size[1]} but was planned as {prompt.width}x{prompt.height}"
    if (about["key"], about["seed"], files["txt"]) != (prompt.key, prompt.seed, prompt.prompt.encode()):
        return "its text or JSON does not match the plan"
    return None


def _check_log(run: RunDir, manifest: Manifest) -> list[str]:
    """What is wrong with a shard's memory log. It proves nothing that the manifest does not prove."""
    path = run.memory_log(manifest["shard"])
    what = f"shard {manifest['shard']}: its memory log {path.name}"
    if os.path.lexists(path) and not is_plain(path):
        return [f"{what} is not a plain file"]
    journal = read_journal(path)
    if journal is None or journal.header.get("attempt") != manifest["attempt"]:
        return [f"{what} is missing or belongs to another attempt"]
    if [sample for record in journal.records for sample in record["samples"]] != manifest["samples"]:
        return [f"{what} does not cover the manifest"]
    return []


def check_index(plan: Plan) -> list[str]:
    """What is wrong with the index of a run whose shards are all committed and sound.

    An index that is missing, or lists fewer shards because the plan has grown, is not wrong: `finish` writes it.
    """
    if not os.path.lexists(plan.run.index):
        return []
    index = read_index(plan.run)
    if index is None:
        return ["index.json is damaged: run the same command again to have it written"]
    expected = index_of(plan)
    listed = len(index["shards"])
    if (index["run_id"], index["shards"]) != (plan.run_id, expected["shards"][:listed]):
        return ["index.json does not list the shards as they are: run the same command again"]
    return []


def made_twice(run: RunDir) -> int:
    """How many units were made more than once, according to the workers' logs: work lost to interruptions."""
    made: Counter[tuple[int, int, int]] = Counter()
    for path in run.event_logs():
        for event in read_events(path):
            if event.get("event") == "made":
                with suppress(KeyError, TypeError):  # not ours
                    made[event["shard"], event["batch"], event["first_row"]] += 1
    return sum(count - 1 for count in made.values())


def _list(lines: list[str]) -> None:
    for line in lines[:_SHOWN_PROBLEMS]:
        say(line)
    if len(lines) > _SHOWN_PROBLEMS:
        say(f"and {len(lines) - _SHOWN_PROBLEMS} more")


def show(run: RunDir, copies: bool = False) -> int:
    """Print that the run is sound, or what is wrong; return the exit code. Raises BatchgenError."""
    plan = load_plan(run)
    findings = verify(plan, copies)
    _list([*findings.problems, *(f"warning: {warning}" for warning in findings.warnings)])
    if findings.problems:
        print(f"{run.root}: BROKEN: {len(findings.problems)} problems; nothing was changed")
        print(remedy_of_damage(run))
        return EXIT_BROKEN
    failed = failed_samples(plan)
    checked = plan.shard_count - len(findings.missing_shards)
    print(
        f"{run.root}: {checked} of {plan.shard_count} shards, {findings.images} of {plan.images} images checked, "
        f"{len(failed)} failed, {sum(segment.rejects for segment in plan.segments)} rows rejected"
    )
    print(f"{made_twice(run)} batches were made twice")
    for how, number in sorted(findings.copies.items()):
        print(f"{count(number, 'copy', 'copies')} checked at {how}")
    if findings.missing_shards:
        print("not finished, but what is there is sound; run the same command again to go on")
        return EXIT_INTERRUPTED
    if findings.images + len(failed) != plan.images:
        say(f"{plan.images - findings.images - len(failed)} planned images are missing")
        return EXIT_BROKEN
    if (lacks := _copies_lack(plan, findings)) is not None:
        print(lacks)
        return EXIT_INTERRUPTED
    print("whole, with failed images: retry_failed=true tries them again" if failed else "whole")
    return EXIT_WHOLE_WITH_FAILURES if failed else EXIT_WHOLE


def _copies_lack(plan: Plan, findings: Findings) -> str | None:
    """What to say where copies could not be checked, or are not made yet."""
    if findings.unreached:
        return f"not proven: {count(len(findings.unreached), 'copy', 'copies')} not checked ({findings.unreached[0]})"
    if lacking := len(to_copy(plan)):
        return f"{count(lacking, 'shard')} not copied yet: all is whole here, and the same command copies the rest"
    return None


if __name__ == "__main__":
    sys.exit(run_dir_command("verify", "Prove a run whole, or say what is wrong.", show, flags=_FLAGS))
