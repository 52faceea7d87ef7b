"""Which run a person meant who named a directory that is none."""

import difflib
import os
from pathlib import Path

from batchgen.paths import RunDir

_MOST_SHOWN = 3
_OUTPUTS = Path("outputs")  # where conf/config.yaml puts runs


def no_run(run: RunDir) -> str:
    """Say that a directory is not a run, and which run is meant: in it, above it, in outputs/, or of a similar name."""
    root = run.root
    said = f"{root} is not a run: {'it has no plan/' if root.is_dir() else 'there is no such directory'}"
    above = next((one for one in Path(os.path.abspath(root)).parents if _is_run(one)), None)
    if above is not None:
        shown = next((one for one in root.parents if one != Path() and one.absolute() == above), above)
        return f"{said}. It is a part of the run {shown}: name that"
    if inside := _runs_in(root):
        more = f" and {len(inside) - _MOST_SHOWN} more" if len(inside) > _MOST_SHOWN else ""
        return f"{said}. Runs in it: {', '.join(map(str, inside[:_MOST_SHOWN]))}{more}: name one of them"
    for folder in dict.fromkeys((_OUTPUTS, root.parent)):
        runs = {one.name: one for one in _runs_in(folder)}
        if near := difflib.get_close_matches(root.name, runs, n=1):
            return f"{said}. Did you mean {runs[near[0]]}?"
    return f"{said}. Name the directory that holds one"


def _is_run(folder: Path) -> bool:
    try:
        return RunDir(folder).plan.facts.is_file()
    except OSError:  # one that may not be looked into
        return False


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if _is_run(one))
    except OSError:
        return []
