"""What batchgen shows to a person. Showing never raises: no work ends because nobody listens any more.

A reader that went away (`| head`, or a `tee` that Ctrl-C ended too), a terminal that was lost, a full disk behind `>`,
and letters that the terminal does not have: whoever prints, a library or the interpreter at its end, does not hear
of it.
"""

import io
import os
import sys
from typing import Any

from batchgen.errors import BatchgenError


class _Deaf(io.FileIO):
    """A descriptor to write to; what it does not take is lost."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            return len(data)
        return len(data) if written is None else written  # None: a terminal that would have us wait


def open_console() -> None:
    """Make the standard streams of this process such that writing to them never raises. Doors call it first."""
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
