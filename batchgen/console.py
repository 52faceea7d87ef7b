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
from typing import Any

from batchgen.errors import EXIT_INTERRUPTED, BatchgenError, from_os_error
from batchgen.paths import RunDir


class _Deaf(io.FileIO):
    """A descriptor to write to. Bytes that it does not accept are lost."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            return len(data)
        return len(data) if written is None else written  # None: a terminal that would have us wait


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
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=fd == 2 or raw.isatty()
    )


def say(line: str) -> None:
    """One line for the user, on stderr."""
    print(f"batchgen: {line}", file=sys.stderr)


def complain(error: BatchgenError) -> int:
    """Say what is wrong on stderr; return the exit code."""
    say(str(error))
    return error.exit_code


def run_dir_command(
    name: str,
    description: str,
    act: Callable[..., int],
    rehearse: Callable[[RunDir], int] | None = None,
    flags: Mapping[str, str] | None = None,
) -> int:
    """`python -m batchgen.NAME RUN_DIR`, with `rehearse` for `--dry-run`; returns the exit code.

    `flags`: {--name: its help}; those that are given are passed to `act` as name=True.
    """
    open_console()
    parser = argparse.ArgumentParser(prog=f"python -m batchgen.{name}", description=description)
    parser.add_argument("run_dir", type=Path, help="the directory of a run, such as outputs/mars_batch")
    if rehearse is not None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    for flag, what in (flags or {}).items():
        parser.add_argument(flag, action="store_true", help=what)
    options = parser.parse_args()
    given = {flag: True for flag in (one.removeprefix("--") for one in flags or ()) if getattr(options, flag)}
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
