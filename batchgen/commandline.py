"""What the small commands share: one argument, and errors as one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from batchgen.errors import BatchgenError
from batchgen.paths import RunDir


def run_dir_command(name: str, description: str, act: Callable[[RunDir], int]) -> int:
    """`python -m batchgen.NAME RUN_DIR`; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m batchgen.{name}", description=description)
    parser.add_argument("run_dir", type=Path, help="the directory of a run, such as outputs/mars_batch")
    try:
        return act(RunDir(parser.parse_args().run_dir))
    except BatchgenError as error:
        return complain(error)


def complain(error: BatchgenError) -> int:
    """Say what is wrong on stderr; return the exit code."""
    print(f"batchgen: {error}", file=sys.stderr)
    return error.exit_code
