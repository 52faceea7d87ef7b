"""What is made of a run at its end: samples.parquet, the data set card, and the report. Each is put in place whole.

All can be made again at any time, and no other command reads them.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import BatchgenError, BrokenRunError
from batchgen.files import replace
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.report.card import write_card
from batchgen.report.gather import gather
from batchgen.report.jobs import together
from batchgen.report.page import render
from batchgen.report.picks import SHOWN
from batchgen.report.sheet import contact_sheet
from batchgen.report.table import write_table
from batchgen.report.thumbs import data_url, thumbnails
from batchgen.shards.crew import read_crew
from batchgen.shards.leases import Watch


class Files(NamedTuple):
    """Where a report goes to."""

    page: Path
    facts: Path
    sheet: Path


def beside(page: Path) -> Files:
    """The files of a report whose page has this name."""
    return Files(page, page.with_suffix(".json"), page.with_suffix(".png"))


def each_once(runs: Sequence[RunDir]) -> list[RunDir]:
    """The runs in their order, without those that are named again, in whatever way: by a link, or as `a/../run`."""
    found: dict[str, RunDir] = {}
    for run in runs:
        found.setdefault(os.path.realpath(run.root), run)
    return list(found.values())


def write_report(runs: Sequence[RunDir], files: Files) -> dict[str, Any]:
    """Write one report of these runs, each once; return what is in report.json.

    Where there are no pictures there is no contact sheet. Raises UserError for what is no run, and OSError.
    """
    runs = each_once(runs)
    gathered = [gather(run, SHOWN // len(runs)) for run in runs]
    thumbs = thumbnails([one for part in gathered for one in part.shown])
    report = together([part.report for part in gathered])
    replace(files.facts, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode(), durable=False)
    if (sheet := contact_sheet([one for one in thumbs if one is not None])) is not None:
        replace(files.sheet, sheet, durable=False)
    else:
        files.sheet.unlink(missing_ok=True)
    items = [{**one, "thumb": data_url(thumb)} for one, thumb in zip(report["samples"]["items"], thumbs, strict=True)]
    page = render({**report, "samples": {**report["samples"], "items": items}})
    replace(files.page, page.encode("utf-8", "replace"), durable=False)
    return report


def is_last(plan: Plan) -> bool:
    """Whether nobody is at work on a run any more, as far as leases tell: others write the report at their end."""
    try:
        return not read_crew(plan.run, Watch(plan.config.launch.lease_timeout_s)).at_work
    except (BatchgenError, OSError):
        return True


def write_data_set(run: RunDir) -> None:
    """Write samples.parquet and README.md, its card; nothing where the plan is broken. Raises OSError."""
    try:
        plan = load_plan(run)
    except BrokenRunError:  # the report says so
        return
    write_table(plan)
    write_card(plan)


def write_all(run: RunDir) -> list[str]:
    """Write all that is made of a run at its end; return what went wrong, a line each. It never raises an error."""
    steps: dict[str, Callable[[], object]] = {
        "samples.parquet or README.md": lambda: write_data_set(run),
        "the report": lambda: write_report([run], Files(run.report, run.report_json, run.contact_sheet)),
    }
    problems = []
    for what, step in steps.items():
        try:
            step()
        except Exception as error:  # the images are there, and nothing that is made of them may fail the run
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            problems.append(f"{what} was not written: {why} (python -m batchgen.report {run.root} tries again)")
    return problems
