"""What a unit of work took in memory. Reads what is there; starts nothing, synchronises nothing."""

import sys
from typing import Any

import psutil

from batchgen.types import Meters


def reset_peaks() -> None:
    """Begin a new measurement of the device's peaks."""
    torch = _torch_with_cuda()
    if torch:
        torch.cuda.reset_peak_memory_stats()


def read_meters() -> Meters:
    """The figures since `reset_peaks`, in bytes. Without a CUDA device its figures are None."""
    host_rss_bytes = psutil.Process().memory_info().rss
    torch = _torch_with_cuda()
    if not torch:
        return Meters(None, None, None, host_rss_bytes)
    free_bytes, _ = torch.cuda.mem_get_info()
    return Meters(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), free_bytes, host_rss_bytes)


def _torch_with_cuda() -> Any:
    # An engine that needs torch has imported it by now; one that does not must not pay for it.
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
