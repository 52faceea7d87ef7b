"""What batchgen shows to a person, and the command line that the small commands share.

Printing never raises, so no work ends because nobody listens any more: a reader that went away (`| head`, or a `tee`
that Ctrl-C ended too), a lost terminal, a full disk behind `>`, or letters that the terminal does not have. This holds
for batchgen, for libraries and for the interpreter at its end.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from batchgen.errors import EXIT_INTERRUPTED, EXIT_USER, BatchgenError, from_os_error
from batchgen.paths import RunDir

# The commands beside the run itself: what follows the name, and what it is for. `batchgen NAME` and `python -m
# batchgen.NAME` start the module of that name; --help and the answers to a misspelt name list what is here.
COMMANDS = {
    "status": ("RUN_DIR", "the progress, at any time"),
    "verify": ("RUN_DIR", "check that a run is complete"),
    "report": ("RUN_DIR ... [to=FILE.html]", "a page with pictures, speed, memory and failures, at any time"),
    "export": ("RUN_DIR [KEY ...] to=DIR", "samples out of the tars, as plain files"),
    "repair": ("RUN_DIR", "set damaged shards aside, so that they are made again"),
    "doctor": ("[job=NAME] [key=value ...]", "check this machine, and the cluster, before a night; writes nothing"),
    "fetch": ("[job=NAME] [key=value ...]", "fetch what a job needs from the hub before the night"),
    "bench": ("[job=NAME] [key=value ...]", "measure this machine with a job's settings: images/s by each speed lever"),
    "cancel": ("RUN_DIR", "ask the workers of a run, on all machines, to end"),
    "join": ("RUN_DIR", "work on a planned run with the GPUs of this machine, too"),
    "worker": ("RUN_DIR RANK WORLD", "one worker, on any machine that sees the directory"),
}


class _Deaf(io.FileIO):
    """A descriptor to write to. Bytes that it does not accept are lost."""

    def write(self, data: Any, /) -> int:
        left = memoryview(data)
        try:
            while left:
                written = super().write(left)
                left = left[written:] if written else left[:0]  # None: a terminal that would have us wait
        except OSError:
            pass
        return len(data)


def open_console() -> None:
    """Replace the standard streams of this process by streams that never raise. Each command calls it first."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # a closed one would become the first file that is opened
        continue
    os.close(fd)
    sys.stdout = _stream(1) if sys.stdout is sys.__stdout__ else sys.stdout
    sys.stderr = _stream(2) if sys.stderr is sys.__stderr__ else sys.stderr


def _stream(fd: int) -> io.TextIOWrapper:
    original = sys.__stdout__ if fd == 1 else sys.__stderr__
    encoding = original.encoding if original is not None else "utf-8"
    raw = _Deaf(fd, "w", closefd=False)
    # No BufferedWriter between them: where a signal interrupts a write, it would say the same line again later.
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=fd == 2 or raw.isatty())


def say(line: str) -> None:
    """One line for the user, on stderr."""
    print(f"batchgen: {line}", file=sys.stderr)


def complain(error: BatchgenError) -> int:
    """Say what is wrong on stderr; return the exit code."""
    say(str(error))
    return error.exit_code


class Parser(argparse.ArgumentParser):
    """The arguments of a command. A mistake is one line and exit code 2."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=typed_as(name), description=description)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how to ask for more; end the process."""
        say(f"{message} ({self.prog} --help says what belongs there)")
        sys.exit(EXIT_USER)


def typed_as(name: str | None = None) -> str:
    """How batchgen, or its command `name`, was started: what to type to start it again."""
    started = Path(sys.argv[0])
    if name is not None and (started.stem == name or started.parts[-2:] == (name, "__main__.py")):
        return f"python -m batchgen.{name}"
    front = "batchgen" if started.name == "batchgen" else "python -m batchgen"
    return f"{front} {name}" if name else front


def usage() -> str:
    """The lines of --help that say what can be typed."""
    front = typed_as()
    lines = [
        (f"{front} job.prompts=FILE", "a first run, with the bundled model; it is named after the file"),
        (f"{front} job=NAME [key=value ...]", "make a run of a job, or continue it"),
        (f"{front} job=NAME dry_run=true", "show what it would do; writes nothing"),
        (f"{front} -m job=NAME job.seed=1,2,3", "one run for each value"),
        *((f"{front} {name} {follows}", what) for name, (follows, what) in COMMANDS.items()),
        (f"{front} --version", "the versions"),
    ]
    width = max(len(left) for left, _ in lines)
    return "\n".join(f"{left:<{width}}  {right}" for left, right in lines)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def run_dir_command(
    name: str,
    description: str,
    act: Callable[..., int],
    rehearse: Callable[[RunDir], int] | None = None,
    flags: Mapping[str, str] | None = None,
    numbers: Mapping[str, str] | None = None,
) -> int:
    """`batchgen NAME RUN_DIR`, with `rehearse` for `--dry-run`; returns the exit code.

    `flags`: {--name: its help}; those that are given are passed to `act` as name=True. `numbers`: the same for options
    with a number, 1 or more, which are passed as name=N.
    """
    open_console()
    parser = Parser(name, description)
    parser.add_argument("run_dir", type=Path, help="the directory of a run, such as outputs/mars_batch")
    if rehearse is not None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    for flag, what in (flags or {}).items():
        parser.add_argument(flag, action="store_true", help=what)
    for option, what in (numbers or {}).items():
        parser.add_argument(option, type=_at_least_one, metavar="N", help=what)
    options = parser.parse_args()
    names = [one.removeprefix("--") for one in (*(flags or ()), *(numbers or ()))]
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    try:
        if rehearse is not None and options.dry_run:
            return rehearse(RunDir(options.run_dir))
        return act(RunDir(options.run_dir), **given)
    except KeyboardInterrupt:
        say("stopped")
        return EXIT_INTERRUPTED
    except BatchgenError as error:
        return complain(error)
    except OSError as error:  # a full disk, a forbidden directory
        return complain(from_os_error(error, options.run_dir))
