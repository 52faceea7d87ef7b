"""How long a script's work takes on its device, and the memory that it took at most."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

# A work that takes long is not repeated for the sake of a median.
ENOUGH_S = 120.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds: the median of what was counted, and of the first call, which was not. `ended`: when that one did.

    `ended` is in s since the epoch.
    """

    seconds: float
    first_s: float
    ended: float


def timed(work: Callable[[], object], rounds: int, enough_s: float = ENOUGH_S) -> Taken:
    """Call `work` once, and then `rounds` times, or until `enough_s` are over; waits for the GPU each time."""
    taken_s = [_seconds_of(work)]
    ended = time.time()
    while len(taken_s) <= rounds and (len(taken_s) == 1 or sum(taken_s[1:]) < enough_s):
        taken_s.append(_seconds_of(work))
    return Taken(median(taken_s[1:]), taken_s[0], ended)


def _seconds_of(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began_s


def peak_bytes() -> int:
    """The most that this process has allocated: on the GPU, or of the host's memory where it computes on the CPU."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
