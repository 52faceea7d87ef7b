"""Write samples out of the tars as plain files: KEY.png (or .jpg, .webp), KEY.txt and KEY.json.

python -m batchgen.export RUN_DIR [KEY ...] to=DIR [where=COLUMN=VALUE ...] [ext=png,txt]

It only reads the run, shard by shard, and looks into the tars of those shards only that hold what is asked for. Every
file is compared with the sha256 that the shard's manifest states. A file that is there already is never replaced, so
the same command goes on with an export that was interrupted.
"""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from batchgen.config.bounds import KEY_PATTERN
from batchgen.config.check import did_you_mean
from batchgen.console import Parser, complain, open_console, say
from batchgen.errors import (
    EXIT_BROKEN,
    EXIT_INTERRUPTED,
    EXIT_USER,
    EXIT_WHOLE,
    EXIT_WHOLE_WITH_FAILURES,
    BatchgenError,
    UserError,
    from_os_error,
)
from batchgen.files import is_plain, read, replace, sha256_bytes
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.report.listing import Held, Listing, members
from batchgen.report.where import Where, parsed
from batchgen.shards.attempt import advice
from batchgen.shards.copies import record_of
from batchgen.shards.records import SampleRecord
from batchgen.units import count

_KEY = re.compile(rb'"key":"([^"\\]+)"')  # in a file of the plan; in a text of it the quotes have backslashes
_SEARCHED = 20_000  # keys among which one is looked for that is like a misspelt one
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of the samples with these keys (None: of all), those whose columns are as `where` says.

    Of each, the files with these extensions are written into the directory `to`.
    """

    to: Path
    extensions: tuple[str, ...]
    keys: frozenset[str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Exported:
    """What an export did, and what it could not do."""

    samples: int = 0
    files: int = 0  # that were written
    there: int = 0  # files that were there already, as they are in the tar
    differing: list[Path] = field(default_factory=list)  # files that are there with other bytes; they were left alone
    imageless: dict[str, str] = field(default_factory=dict)  # keys that were named and have no image: why
    none_yet: bool = False  # no image that `where` asks for is there; all failed, were filtered or are not made
    away: dict[int, str] = field(default_factory=dict)  # shards whose tars left this disk: where their copies are
    problems: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code: 0 if all that was asked for is there now."""
        if self.differing:
            return EXIT_USER
        if self.problems or self.away:
            return EXIT_BROKEN
        return EXIT_WHOLE_WITH_FAILURES if self.imageless or self.none_yet else EXIT_WHOLE


def export(plan: Plan, wanted: Wanted) -> Exported:
    """Write the files of the samples into their directory, which is made where it is missing.

    Raises UserError for a key or column that the run does not have and where no row is as `where` says, BrokenRunError
    for a damaged plan, and OSError.
    """
    done, listing = Exported(), Listing(plan)
    asked = dict.fromkeys(range(plan.shard_count)) if wanted.keys is None else _shards_of(plan, wanted.keys)
    where = Where(wanted.where)
    for shard, keys in asked.items():
        held = listing.held(shard)
        if wanted.where:  # of shards that are not made, too, which may have other columns
            keys = where.matching((one for batch in plan.shard(shard)[0].batches for one in batch.prompts), keys)
        if held is None and shard not in plan.run.committed():
            done.imageless |= dict.fromkeys(keys or () if wanted.keys is not None else (), "it is not made yet")
            continue
        samples = [one for one in held.samples if listing.owns(shard, one["key"])] if held else []
        samples = [one for one in samples if keys is None or one["key"] in keys]
        good = [one for one in samples if one["status"] == "ok" and KEY_PATTERN.fullmatch(one["key"])]
        for one in samples if wanted.keys is not None else ():
            done.imageless[one["key"]] = f"{one['status']}: {one.get('reason')}"
        for one in good:
            done.imageless.pop(one["key"], None)
        if held is not None and good:
            _write_shard(plan.run, shard, held, good, wanted, done)
    where.check()
    done.problems += dict.fromkeys(listing.problems)
    done.none_yet = bool(wanted.where) and not (done.samples or done.away or done.problems)
    return done


def _shards_of(plan: Plan, keys: Collection[str]) -> dict[int, set[str]]:
    """The shards that plan these keys; one that was tried again is in two. Raises UserError for keys of no shard."""
    found: dict[int, set[str]] = {}
    for shard, planned in _planned(plan):
        if here := planned.intersection(keys):
            found[shard] = here
    if unknown := sorted(set(keys).difference(*found.values())):
        every = [key for _, planned in _planned(plan) for key in sorted(planned)]
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise UserError(f"{plan.run.root} has no image with the key {unknown[0]}{more}{_like(unknown[0], every)}")
    return found


def _planned(plan: Plan) -> Iterator[tuple[int, set[str]]]:
    """The keys of each shard, as the plan's files mention them. A column of the name `key` may be among them."""
    for segment in plan.segments:
        for shard in range(segment.first_shard, segment.first_shard + len(segment.shards)):
            yield shard, {key.decode() for key in _KEY.findall(read(segment.files.shard(shard)))}


def _like(key: str, keys: Sequence[str]) -> str:
    """Which key was meant."""
    key = Path(key).name.partition(".")[0]  # of a file in the tar
    near = list(islice((one for one in keys if key and one.startswith(key)), 3))
    near = near or difflib.get_close_matches(key, keys[:_SEARCHED], n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; its keys are like {', '.join(keys[:2])}"


def _write_shard(
    run: RunDir, shard: int, held: Held, samples: Sequence[SampleRecord], wanted: Wanted, done: Exported
) -> None:
    if held.tar is None:
        if (copy := record_of(run, shard)) is not None:  # else it is lost, which the listing tells
            done.away[shard] = copy["url"]
        return
    wanted.to.mkdir(parents=True, exist_ok=True)
    spans, lacking = members(held.tar), []
    with held.tar.open("rb") as tar:
        for sample in samples:
            for extension in wanted.extensions:
                name = f"{sample['key']}.{extension}"
                span = spans.get(name)
                data = os.pread(tar.fileno(), span.size, span.offset) if span else b""
                if span is None or sample.get("sha256", {}).get(extension) not in (None, sha256_bytes(data)):
                    lacking.append(name)
                else:
                    _write(wanted.to / name, data, done)
            done.samples += 1
    if lacking:
        more = f" and {len(lacking) - 1} more are" if len(lacking) > 1 else " is"
        done.problems.append(f"{held.tar}: {lacking[0]}{more} damaged or missing: {advice(run)}")


def _write(path: Path, data: bytes, done: Exported) -> None:
    if not os.path.lexists(path):
        replace(path, data, durable=False)
        done.files += 1
    elif is_plain(path) and path.stat().st_size == len(data) and read(path) == data:
        done.there += 1
    else:
        done.differing.append(path)


def _lines(plan: Plan, done: Exported, to: Path) -> Iterator[str]:
    """What a person reads of an export, on stderr."""
    problems = list(done.problems)
    if done.away:
        shard, url = next(iter(done.away.items()))
        problems.append(
            f"{count(len(done.away), 'shard')} of those asked for left this disk, so their samples were not written: "
            f"copy the tars back into {plan.run.shards} ({shard:06d}.tar is at {url})"
        )
    if done.differing:
        problems.append(
            f"{count(len(done.differing), 'file')} with these names but other bytes were left alone, such as "
            f"{done.differing[0]}: name another directory by to="
        )
    if done.none_yet and not done.imageless:
        problems.append("what where= asks for has no image: each failed, was filtered or is not made yet")
    problems += [f"{key} has no image: {why}" for key, why in done.imageless.items()]
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"and {len(problems) - _SHOWN} more"
    there = f", {done.there} were there already" if done.there else ""
    yield f"{count(done.files, 'file')} of {count(done.samples, 'sample')} written to {to}{there}"


def _command(words: Sequence[str]) -> tuple[RunDir, list[str], dict[str, list[str]]]:
    """The run, the keys and the options that were typed."""
    options: dict[str, list[str]] = {"to": [], "where": [], "ext": []}
    keys = []
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            keys.append(word)
        elif name in options:
            options[name].append(value)
        else:
            raise UserError(f"{word}: no such option{did_you_mean(name, options)}")
    if len(options["to"]) != 1 or not options["to"][0]:
        raise UserError(f"say where the files go to: to=DIR, once ({shlex.join(words)} to=exported)")
    return RunDir(Path(words[0])), keys, options


def show(words: Sequence[str]) -> int:
    """Export what the words of the command line say, and tell it; return the exit code.

    Raises BatchgenError and OSError.
    """
    run, keys, options = _command(words)
    plan, to = load_plan(run), Path(options["to"][0])
    if to.exists() and not to.is_dir():
        raise UserError(f"to={to} is not a directory")
    if to.resolve().is_relative_to(run.root.resolve()):
        raise UserError(f"to={to} is inside the run, which holds nothing but what batchgen keeps there: name another")
    valid = (plan.planned.output.format, "txt", "json")
    extensions = tuple(dict.fromkeys(one for text in options["ext"] for one in text.split(","))) or valid
    if wrong := [one for one in extensions if one not in valid]:
        raise UserError(f"ext={wrong[0]}: the samples of this run have no such file{did_you_mean(wrong[0], valid)}")
    done = export(plan, Wanted(to, extensions, frozenset(keys) if keys else None, parsed(options["where"])))
    for line in _lines(plan, done, to):
        say(line)
    return done.code


def main() -> int:
    """The command line; returns the exit code."""
    open_console()
    parser = Parser("export", "Write samples out of the tars as plain files.")
    parser.add_argument("run_dir", help="the directory of a run, such as outputs/mars_batch")
    parser.add_argument("words", nargs="*", metavar="KEY", help="a sample; without any, all samples")
    parser.add_argument("to", nargs="?", metavar="to=DIR", help="where the files go to; it is made if it is not there")
    for name, what in (("where=COLUMN=VALUE", "only rows with it"), ("ext=png,txt", "only these files of each sample")):
        parser.add_argument(name.partition("=")[0], nargs="?", metavar=name, help=what)
    given = parser.parse_args()
    try:
        return show([given.run_dir, *given.words])
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return EXIT_INTERRUPTED
    except BatchgenError as error:
        return complain(error)
    except OSError as error:
        return complain(from_os_error(error, given.run_dir))


if __name__ == "__main__":
    sys.exit(main())
