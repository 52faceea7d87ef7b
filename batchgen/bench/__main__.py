"""Measure a job on this machine: the guide's savings, hand-written batches, and batchgen with each speed lever.

python -m batchgen.bench [job=NAME] [key=value ...] [--images N] [--only NAME ...] [--again] [--json FILE]
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.__main__ import compose
from batchgen.bench.place import find_place
from batchgen.bench.rows import ROWS, Row
from batchgen.config.check import did_you_mean
from batchgen.config.compose import NO_PROMPTS, load_any
from batchgen.config.schema import Config
from batchgen.console import Parser, complain, open_console, say, typed_as
from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE, StoppedError, UserError
from batchgen.machine.process import StopEvent, catch_signals

_HELP = """\
usage: {command} [job=NAME] [key=value ...] [--images N] [--only NAME ...] [--again] [--json FILE]

Measures on this machine, with the model, size, steps, guidance and scheduler of the command that is to make the run:
 - one image as the guide to diffusers' memory savings makes it: {guide}
 - batches, images a second: by that guide's recipe, by a script with torch.compile, by batchgen as given (from a prompt
   file to committed shards), and by batchgen with each speed lever:
   {levers}
Each row runs in a process of its own, on one GPU or the CPU. The prompts are the bench's own, and a row of a prompt
file that asks for another size or number of steps does not count. Rows that are measured are kept, so the same command
goes on; they are measured anew for another device, version, model or setting.

  {command} job=NAME         the whole table; also as JSON, beside the run's directory
  --only batchgen compile    these rows alone
  --images 8                 so many images a row; without it, two batches of job.batch_size, after one that warms up
  --again                    measure also what is known
  --json FILE                the JSON goes there
  dry_run=true               say what would be measured, and how long it takes"""


def main() -> None:
    """The command line. Ends the process with the exit code."""
    open_console()
    if "--help" in sys.argv or "-h" in sys.argv:
        guide, levers = ([row.name for row in ROWS if row.maker == one] for one in ("guide", "own"))
        wrapped = textwrap.fill(", ".join(levers[1:]), 110, subsequent_indent="   ")
        print(_HELP.format(command=typed_as("bench"), guide=", ".join(guide[:-1]), levers=wrapped))
        return
    try:
        options, rest = _options(sys.argv[1:])
    except UserError as error:
        sys.exit(complain(error))
    sys.argv[1:] = rest
    compose(_settled, partial(_bench, options))


def _options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The bench's own options, and what is Hydra's. Raises UserError."""
    parser = Parser("bench", "")
    parser.allow_abbrev = False
    parser.add_argument("--images", type=int)
    parser.add_argument("--only", nargs="+", action="extend", default=[])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--json", type=Path)
    options, rest = parser.parse_known_args(words)
    rest += [word for word in options.only if "=" in word]
    wanted = [name for word in options.only if "=" not in word for name in word.split(",") if name]
    names = [row.name for row in ROWS]
    for name in wanted:
        if name not in names:
            raise UserError(f"--only {name}: there is no such row{did_you_mean(name, names)}")
    if options.images is not None and options.images < 1:
        raise UserError(f"--images {options.images}: it must be a whole number of 1 or more")
    if "-m" in rest or "--multirun" in rest:
        raise UserError("-m: a bench measures one job; leave it out")
    if options.json is not None and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        raise UserError(f"--json {options.json}: it must be a file in a directory that exists")
    options.rows = [row for row in ROWS if not wanted or row.name in wanted]
    return options, rest


def _settled(composed: Any) -> Config:
    return load_any(composed, "bench")


def _bench(options: argparse.Namespace, config: Config) -> int:
    """Measure, show and write; return the exit code."""
    from batchgen.bench.job import settled_job
    from batchgen.bench.measure import Bench

    stop = StopEvent()
    job = settled_job(config, find_place(), options.images, sys.argv[1:])
    catch_signals(stop)
    rows: list[Row] = options.rows
    bench = Bench(job, rows, options.json or _beside(config), options.again, stop)
    try:
        bench.foretell()
        if config.dry_run:
            for row in rows:
                print(f"  {row.name}")
            return EXIT_WHOLE
        code = bench.run()
    except StoppedError as error:
        say(str(error))
        code = EXIT_INTERRUPTED
    bench.tell()
    return code


def _beside(config: Config) -> Path:
    """Where the JSON goes unless it is said: beside the directory of the run."""
    run_dir = Path(config.run_dir)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    return run_dir.parent / ("bench.json" if config.job.prompts == NO_PROMPTS else f"{run_dir.name}.bench.json")


if __name__ == "__main__":
    main()
