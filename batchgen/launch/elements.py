"""What the elements of a run's job arrays do: by the run's own files, and by squeue where it answers."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchgen.errors import BatchgenError
from batchgen.launch.notes import Submission
from batchgen.machine import slurm
from batchgen.shards.crew import AT_WORK, Member
from batchgen.units import count

_ASK_EVERY_S, _WAIT_S = 30.0, 3.0
_EXPECTED = ", expected at "
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


@dataclass(frozen=True, slots=True)
class ElementState:
    """An element of an array: what it does, in words, and the names of its workers."""

    id: str
    does: str
    node: str | None
    workers: tuple[str, ...]


class Queue:
    """What squeue says of some jobs. It is asked in the background and seldom, and nobody waits long for it."""

    def __init__(self) -> None:
        self._asked_s: float | None = None
        self._asking: threading.Thread | None = None
        self.listed: list[slurm.Element] | None = None
        self.problem: str | None = None

    def ask(self, jobs: Sequence[str]) -> None:
        """Begin to ask, unless it was asked a short while ago. `listed` is None as long as there is no answer."""
        now_s = time.monotonic()
        if not jobs or (self._asked_s is not None and now_s - self._asked_s < _ASK_EVERY_S):
            return
        self._asked_s = now_s
        self._asking = threading.Thread(target=self._ask, args=(list(jobs),), daemon=True, name="squeue")
        self._asking.start()

    def wait(self) -> None:
        """Wait a little for the answer."""
        if self._asking is not None:
            self._asking.join(_WAIT_S)
            if self._asking.is_alive():
                self.listed, self.problem = None, f"squeue did not answer within {_WAIT_S:g} s"
            else:
                self._asking = None

    def _ask(self, jobs: list[str]) -> None:
        try:
            self.listed, self.problem = slurm.listed(jobs), None
        except BatchgenError as error:
            self.listed, self.problem = None, str(error)


def element_states(
    arrays: Sequence[Submission], members: Sequence[Member], listed: Sequence[slurm.Element] | None
) -> list[ElementState]:
    """What each element of the arrays does. `listed`: what squeue said, None where it did not answer."""
    return [one for array in arrays for one in _of_array(array, members, listed)]


def _of_array(
    array: Submission, members: Sequence[Member], listed: Sequence[slurm.Element] | None
) -> Iterator[ElementState]:
    queued = {one.id: one for one in listed or ()}
    for task in range(array.elements):
        name = f"{array.job}_{task}"
        own = [one for one in members if one.element == name and not one.is_replaced]
        entry = queued.get(name)
        node = (entry.node if entry else None) or next((one.host for one in own), None)
        yield ElementState(name, _does(own, entry, listed is not None), node or None, tuple(one.worker for one in own))


def _does(own: Sequence[Member], entry: slurm.Element | None, answered: bool) -> str:
    if entry is not None and entry.state in _WAITING:
        why = f" ({entry.reason})" if entry.reason else ""
        return f"waiting{why}" + (f"{_EXPECTED}{entry.start.replace('T', ' ')}" if entry.start else "")
    if any(one.state in AT_WORK for one in own):
        return "running"
    if own:
        return own[0].state
    if entry is not None and entry.is_live:
        return "starting" if entry.state == "RUNNING" else entry.state.lower()
    return "over" if answered else "not heard of"


def element_lines(arrays: Sequence[Submission], states: Sequence[ElementState], queue: Queue) -> list[str]:
    """A line for each array that is not over, and what hinders squeue."""
    lines = []
    for array in arrays:
        does = [one.does.partition(_EXPECTED)[0] for one in states if one.id.startswith(f"{array.job}_")]
        parts = [f"{number} {what}" for what, number in Counter(does).most_common()]
        if set(does) - {"over", "ended"}:
            lines.append(f"array {array.job}, {count(array.elements, 'element')}: {', '.join(parts)}")
    if lines and queue.problem is not None:
        lines.append(f"this is by the run's files alone: {queue.problem}")
    return lines
