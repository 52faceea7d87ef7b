"""Write the report of a run, or one of several runs, at any time. It only reads the runs.

python -m batchgen.report RUN_DIR [RUN_DIR ...] [to=FILE.html]
"""

import sys
from pathlib import Path

from batchgen.console import Parser, complain, open_console, say
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, BatchgenError, UserError, from_os_error
from batchgen.paths import RunDir
from batchgen.plan.nearby import no_run
from batchgen.report.write import beside, each_once, write_all, write_report

_TO = "to="


def report(runs: list[RunDir], to: Path | None) -> int:
    """Write the report of these runs and say where it is; return the exit code. Raises BatchgenError and OSError."""
    runs = each_once(runs)
    for run in runs:
        if not run.plan.root.is_dir():
            raise UserError(no_run(run))
    if to is None and len(runs) == 1:
        problems = write_all(runs[0])
        for line in problems:
            say(line)
        if not problems:
            say(f"look at it: {runs[0].report}")
        return EXIT_BROKEN if problems else EXIT_WHOLE
    if to is None:
        raise UserError("one report of several runs needs a name: add to=FILE.html")
    if to.suffix != ".html":
        raise UserError(f"{_TO}{to} must end with .html: FILE.json and FILE.png are written beside it")
    if not to.parent.is_dir():
        raise UserError(f"{_TO}{to}: there is no directory {to.parent}")
    write_report(runs, beside(to))
    say(f"look at it: {to}")
    return EXIT_WHOLE


def main() -> int:
    """The command line; returns the exit code."""
    open_console()
    parser = Parser("report", "Write the report of a run: report.html, report.json and contact_sheet.png in it.")
    parser.add_argument("run_dir", nargs="+", help="the directory of a run, such as outputs/mars_batch, or several")
    parser.add_argument("to", nargs="?", metavar="to=FILE.html", help="write there; several runs need it")
    given = parser.parse_args().run_dir
    targets = [Path(one.removeprefix(_TO)) for one in given if one.startswith(_TO)]
    runs = [RunDir(Path(one)) for one in given if not one.startswith(_TO)]
    if len(targets) > 1 or not runs:
        parser.error("give one or more run directories, and to=FILE.html once at most")
    try:
        return report(runs, targets[0] if targets else None)
    except KeyboardInterrupt:
        say("stopped")
        return EXIT_INTERRUPTED
    except BatchgenError as error:
        return complain(error)
    except OSError as error:
        return complain(from_os_error(error, targets[0].parent if targets else runs[0].root))


if __name__ == "__main__":
    sys.exit(main())
