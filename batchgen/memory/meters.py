"""What a unit of work took, in memory and seconds. Reads what is there and starts nothing."""

import sys
import time
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
        return Meters(None, None, None, None, host_rss_bytes, None)
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return Meters(
        peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(),
        device_free_bytes=free_bytes,
        device_used_bytes=total_bytes - free_bytes,
        host_rss_bytes=host_rss_bytes,
        host_pinned_bytes=torch.cuda.host_memory_stats().get("allocated_bytes.current"),
    )


class Stopwatch:
    """Adds up the seconds of with-blocks; on a CUDA device those of the device, by events, without waiting for it."""

    def __init__(self) -> None:
        self._torch = _torch_with_cuda()
        self._spans: list[tuple[Any, Any]] = []
        self._started: Any = None

    def __enter__(self) -> None:
        self._started = self._now()

    def __exit__(self, *_: object) -> None:
        self._spans.append((self._started, self._now()))

    def _now(self) -> Any:
        if not self._torch:
            return time.perf_counter()
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        """The sum so far. Waits until the device has done what was timed."""
        if not self._torch:
            return float(sum(end - start for start, end in self._spans))
        if self._spans:
            self._spans[-1][1].synchronize()
        return float(sum(start.elapsed_time(end) for start, end in self._spans) / 1000)


def _torch_with_cuda() -> Any:
    # An engine that needs torch has imported it by now; one that does not must not pay for it.
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
