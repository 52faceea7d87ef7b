"""What a placement takes of the host's memory, and whether this host has that. Pure, without torch.

The kernel ends a process that takes more than there is, without a word. So these figures are what is taken at least:
who has less is refused before anything is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from batchgen.machine.host import Room
from batchgen.memory.figures import Weights
from batchgen.memory.placement_bytes import pinned_bytes, waiting_bytes
from batchgen.units import GIB

# What a worker holds beside weights: Python, torch and its libraries, on a GPU also CUDA's side in the host, and images
# on their way to a file.
CPU_PROCESS_BYTES, CUDA_PROCESS_BYTES = 320 << 20, 1 << 30


class Parts(NamedTuple):
    """Bytes of the parts of each stage."""

    text: int = 0
    denoiser: int = 0
    vae: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """What a worker may have of its host's memory, and what loading its model makes there (loading.py).

    `room` is None where the host is another one than this.
    """

    room: Room | None
    made: Parts = Parts()

    def holds(self, weights: Weights, placement: str) -> bool:
        """Whether the host has as much memory as the placement takes of it."""
        return self.room is None or needed_bytes(weights, placement, self.made) <= self.room.held_bytes

    def pins(self, weights: Weights, placement: str) -> bool:
        """Whether all that waits in the host's memory can be page-locked there."""
        return self.room is None or pinned_bytes(weights, placement) <= self.room.pinned_bytes

    def lacks(self, weights: Weights, placement: str, by_hand: bool = False, instead: Sequence[str] = ()) -> str:
        """One line: what the placement takes that the host has not. `instead`: what else would help."""
        assert self.room is not None
        name = f"memory.policy.placement={placement}" if by_hand else f"the placement {placement}"
        advice = [*(["leave memory.policy.placement out"] if by_hand else []), *instead]
        return shortage(name, needed_bytes(weights, placement, self.made), self.room, advice)


def needed_bytes(weights: Weights, placement: str, made: Parts) -> int:
    """The most bytes of its own that a worker on a GPU has in the host's memory, from when it loads the model on.

    Part after part leaves for the device, or is packed to wait here. Pages of files, which the kernel may drop, do not
    count.
    """
    waiting = waiting_bytes(weights, placement)
    # After each part: what waits of the parts so far, and what loading made of those that follow
    placed = [0, *accumulate(waiting)]
    left = [sum(made), *(sum(made) - gone for gone in accumulate(made))]
    return CUDA_PROCESS_BYTES + max(before + after for before, after in zip(placed, left, strict=True))


def shortage(what: str, least_bytes: int, room: Room, instead: Sequence[str] = ()) -> str:
    """One line: what takes more of the host's memory than there is, and what to do. `instead`: what else would help."""
    each = f" for each of {room.workers} workers" if room.workers > 1 else ""
    fewer = ["start fewer workers on this machine"] if room.workers > 1 else []
    advice = ["give the job more host memory (SLURM: --mem; a container: its limit)", *fewer, *instead]
    return (
        f"{what} takes at least {least_bytes / GIB:.2f} GiB of the host's memory, and there are "
        f"{room.held_bytes / GIB:.2f} GiB{each}: {', '.join(advice[:-1])}{', or ' if advice[1:] else ''}{advice[-1]}"
    )
