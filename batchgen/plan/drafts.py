"""Drafts of plans: a plan is written completely in plan.<uuid>/ and then renamed. Drafts of dead planners are swept."""

import errno
import json
import shutil
from contextlib import suppress

from batchgen.files import to_json, write_new
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.plan_dir import PlanDir

_TRIES = 3


def new_draft(target: PlanDir) -> PlanDir:
    """A new directory beside `target`, to be filled and then renamed to it. It states which process makes it."""
    owner = to_json({"target": target.root.name, "process": process.identity()}).encode()
    for _ in range(_TRIES):
        draft = target.new_draft()
        draft.root.mkdir(parents=True)
        try:
            write_new(draft.owner, owner)
        except FileNotFoundError:  # swept away before it stated whose it is
            continue
        except BaseException:
            shutil.rmtree(draft.root, ignore_errors=True)
            raise
        return draft
    raise FileNotFoundError(errno.ENOENT, "removed as soon as it is made", str(draft.root))


def sweep_drafts(run: RunDir) -> None:
    """Remove the drafts that can no longer become a plan; one whose planner may be alive stays."""
    sweep_words(run)
    for draft in run.drafts():
        if draft.is_swept:
            shutil.rmtree(draft.root, ignore_errors=True)
            continue
        with suppress(OSError):  # only if it is empty: its planner then makes another one
            draft.root.rmdir()
        if _is_over(draft):
            with suppress(OSError):
                draft.root.rename(draft.swept.root)
            shutil.rmtree(draft.swept.root, ignore_errors=True)


def sweep_words(run: RunDir) -> None:
    """Remove what rank 0 of a group that is gone told the others. Never raises OSError."""
    for word in run.root.glob(run.word("*").name):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if process.is_gone(json.loads(word.read_bytes())["process"]):
                word.unlink(missing_ok=True)


def _is_over(draft: PlanDir) -> bool:
    """Whether a draft's planner has ended, or comes too late since its plan is there, or states neither.

    A planner on another machine is taken to be alive. A draft that states nothing was made by an older batchgen, or
    its planner was killed as it began; if that planner is alive and only just beginning, it begins once more.
    """
    try:
        owner = json.loads(draft.owner.read_bytes())
        return draft.root.with_name(owner["target"]).exists() or process.is_gone(owner["process"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return True
    except OSError:
        return False
