"""The end of a sweep, such as several jobs in a night: how each of its runs went, and one report of them all."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from batchgen.console import say
from batchgen.errors import EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES, in_one_line
from batchgen.paths import RunDir
from batchgen.report.write import beside, each_once, write_report
from batchgen.units import count

_NAMED = 3  # of so many runs the report has the names, and of more those of the first
_MOST_BYTES = 200  # of the page's name: file systems take 255, and a temporary file's name is longer


class Ended(NamedTuple):
    """A run of a sweep: its directory, and the exit code that it ended with."""

    run_dir: Path
    code: int


def tell(ended: Sequence[Ended]) -> None:
    """Say which runs of a sweep are not whole, write one report of all that were begun, and say where it is.

    The report is beside the first of them, and has their names. The same sweep writes the same file again.
    """
    lacking = [one for one in ended if one.code not in (EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES)]
    told = "".join(f"; {one.run_dir} ended with exit code {one.code}" for one in lacking)
    say(f"{len(ended) - len(lacking)} of {count(len(ended), 'run')} are whole{told}")
    begun = [run for run in each_once([RunDir(one.run_dir) for one in ended]) if run.plan.root.is_dir()]
    if len(begun) < 2:
        return
    page = begun[0].root.parent / name_of([run.root.name for run in begun])
    try:
        write_report(begun, beside(page))
    except Exception as error:  # the runs are there, and have reports of their own
        say(f"no report of all of them was written: {in_one_line(error)}")
    else:
        say(f"look at all of them: {page}")


def name_of(names: Sequence[str]) -> str:
    """The name of the page of these runs. One that is too long is cut, and a digest tells it from others."""
    more = [f"{len(names) - _NAMED}_more"] if len(names) > _NAMED else []
    name, suffix = "+".join([*names[:_NAMED], *more]), ".html"
    data = os.fsencode(name)
    if len(data) + len(suffix) > _MOST_BYTES:
        suffix = f"-{hashlib.sha256(data).hexdigest()[:8]}{suffix}"
        name = data[: _MOST_BYTES - len(suffix)].decode(errors="ignore")  # half a character goes
    return f"{name}{suffix}"
