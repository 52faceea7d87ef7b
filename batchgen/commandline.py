"""What the small commands share: one argument, and errors as one line."""

import argparse
from collections.abc import Callable
from pathlib import Path

from batchgen.console import complain, open_console, say
from batchgen.errors import EXIT_INTERRUPTED, BatchgenError, from_os_error
from batchgen.paths import RunDir


def run_dir_command(
    name: str, description: str, act: Callable[[RunDir], int], rehearse: Callable[[RunDir], int] | None = None
) -> int:
    """`python -m batchgen.NAME RUN_DIR`, with `rehearse` for `--dry-run`; returns the exit code."""
    open_console()
    parser = argparse.ArgumentParser(prog=f"python -m batchgen.{name}", description=description)
    parser.add_argument("run_dir", type=Path, help="the directory of a run, such as outputs/mars_batch")
    if rehearse is not None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    options = parser.parse_args()
    try:
        return (rehearse if rehearse is not None and options.dry_run else act)(RunDir(options.run_dir))
    except KeyboardInterrupt:
        say("stopped")
        return EXIT_INTERRUPTED
    except BatchgenError as error:
        return complain(error)
    except OSError as error:  # a full disk, a forbidden directory
        return complain(from_os_error(error, options.run_dir))
