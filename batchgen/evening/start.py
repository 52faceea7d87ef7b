"""At the start of a run: does it fit on the disk? And at its end: what it showed is kept for later estimates."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

from batchgen.errors import BatchgenError, UserError
from batchgen.evening import kept
from batchgen.evening.disk import too_small
from batchgen.evening.measured import paces_of
from batchgen.evening.outlook import Outlook, left_images
from batchgen.plan.store import Plan

# What planning takes at most: a check of the model that was made for the first time does not count with it.
_PLANNING_S, _PROMPT_S = 1.0, 1e-4


def check_disk(plan: Plan, open_shards: Collection[int], outlook: Outlook, say: Callable[[str], None]) -> None:
    """Warn where the disk is nearly too small for what is left to make.

    Raises UserError where it certainly is too small, unless `launch.check_disk` is off.
    """
    try:
        room = outlook.room(left_images(plan, open_shards), plan.run.root)
    except OSError:  # a file system that does not tell what is free
        return
    if room.lacks and plan.config.launch.check_disk:
        raise UserError(too_small(room, plan.run))
    warning = too_small(room, plan.run) if room.lacks else room.warning
    if warning is not None:
        say(warning)


def keep_run(plan: Plan, outlook: Outlook, began_s: float, launched_s: float, is_over: bool) -> None:
    """Keep the paces of what was made since `launched_s`. Never raises: an estimate is worth no night's work.

    `began_s`: when the command began to plan. Both are in s since the epoch. `is_over`: whether all is made.
    """
    with suppress(OSError, ValueError, KeyError, TypeError, IndexError, BatchgenError):
        planning_s = min(launched_s - began_s, _PLANNING_S + _PROMPT_S * plan.images)
        front_s = began_s - psutil.Process().create_time() + planning_s
        workers = min(plan.config.launch.workers or 1, plan.shard_count)
        sharing = outlook.crew(workers).sharing
        kind, paces = paces_of(plan, launched_s, front_s, sharing, time.time() if is_over else None)
        if kind == outlook.device_kind and paces.sizes:
            kept.keep(outlook.key, paces)
