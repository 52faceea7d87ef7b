"""Where a bench measures: the GPU or the CPU, found without torch."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from batchgen.machine.gpus import find_gpus


@dataclass(frozen=True, slots=True)
class Place:
    """One device. `gpu`: its name in CUDA_VISIBLE_DEVICES, None for the CPU; `capability`: its compute capability.

    `has_xformers`: whether that package is installed.
    """

    name: str
    gpu: str | None = None
    capability: tuple[int, int] | None = None
    has_xformers: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.gpu is not None

    def environment(self) -> dict[str, str]:
        """What a process finds in its environment so that it uses this device alone."""
        return dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu is not None else {})


def find_place() -> Place:
    """The first GPU that this process may use, or the CPU. Raises DeviceError where a GPU cannot be asked."""
    has_xformers = importlib.util.find_spec("xformers") is not None
    gpus = find_gpus()
    if not gpus:
        return Place(cpu_name(), has_xformers=has_xformers)
    return Place(gpus[0].kind or f"GPU {gpus[0].device}", gpus[0].device, gpus[0].capability, has_xformers)


def cpu_name() -> str:
    """The CPU's model and how many cores of it there are."""
    blocks = Path("/proc/cpuinfo").read_text().strip().split("\n\n")
    fields = dict(line.partition(":")[::2] for line in blocks[0].splitlines())
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{named.get('model name', 'CPU')}, {len(blocks)} cores"
