"""Drafts of plans: a plan is made whole in plan.<uuid>/, then renamed. What dead planners left is swept."""

import errno
import json
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from batchgen.files import to_json, write_new
from batchgen.machine import process
from batchgen.paths import RunDir

OWNER = "owner.json"  # in a draft: who makes it, and which plan it is to become
_SWEPT = ".swept"
_NAME = re.compile(r"plan\.[0-9a-f]{32}(\.swept)*")
_TRIES = 3


def new_draft(target: Path) -> Path:
    """A new directory beside `target`, to be filled and then renamed to it. It states who this process is."""
    owner = to_json({"target": target.name, "process": process.identity()}).encode()
    for _ in range(_TRIES):
        draft = target.with_name(f"plan.{uuid.uuid4().hex}")
        draft.mkdir(parents=True)
        try:
            write_new(draft / OWNER, owner)
        except FileNotFoundError:  # swept away before it said whose it is
            continue
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return draft
    raise FileNotFoundError(errno.ENOENT, "removed as soon as it is made", str(draft))


def sweep_drafts(run: RunDir) -> None:
    """Remove the drafts that can become no plan any more; one that may be alive stays."""
    for draft in (path for path in run.root.glob("plan.*") if _NAME.fullmatch(path.name)):
        if draft.name.endswith(_SWEPT):
            shutil.rmtree(draft, ignore_errors=True)
            continue
        with suppress(OSError):  # only if it is empty: its planner makes another one then
            draft.rmdir()
        if _is_over(draft):
            swept = draft.with_name(f"{draft.name}{_SWEPT}")  # never half a draft
            with suppress(OSError):
                draft.rename(swept)
            shutil.rmtree(swept, ignore_errors=True)


def _is_over(draft: Path) -> bool:
    """Whether a draft's planner has ended, or comes too late since its plan is there, or states neither.

    A planner of another machine is taken to be alive. One that states nothing was of a batchgen before this one, or
    was killed as it began; were it only just beginning, it would begin once more.
    """
    try:
        owner = json.loads((draft / OWNER).read_bytes())
        return draft.with_name(owner["target"]).exists() or process.is_gone(owner["process"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return True
    except OSError:
        return False
