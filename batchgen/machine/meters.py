"""How much memory and how many seconds a unit of work took. These meters only read; they start nothing."""

import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from batchgen.machine.pinned import Pinned, locked_bytes
from batchgen.types import Meters

# The device memory that is used beside what torch allocates: CUDA's context, and kernels, which are loaded when they
# are first used (measured on an H200: 0.51 GiB and 0.17 GiB).
CONTEXT_BYTES = 700 << 20
KERNEL_BYTES = 192 << 20
_COPIED_BYTES = 64 << 20
_TRIES = 4
_MATRIX_ROWS = 4096


def reset_peaks() -> None:
    """Begin a new measurement of the device's peaks."""
    torch = _torch_with_cuda()
    if torch:
        torch.cuda.reset_peak_memory_stats()


def read_meters() -> Meters:
    """The figures since `reset_peaks`, in bytes. Without a CUDA device the device's figures are None."""
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
        host_pinned_bytes=torch.cuda.host_memory_stats().get("allocated_bytes.current", 0) + locked_bytes(),
    )


def try_cuda() -> tuple[bool, str]:
    """Whether torch can use a GPU now, and what it says if it cannot."""
    import torch

    try:
        torch.cuda.mem_get_info()  # makes the context; a card that is full, or reserved for another process, refuses it
    except (RuntimeError, AssertionError) as error:
        return False, str(error).strip().partition("\n")[0] or type(error).__name__
    return True, ""


class Gauge:
    """The memory of the CUDA device that this process computes on. The process may take at most `cap_bytes`."""

    def __init__(self, cap_bytes: int | None = None) -> None:
        import torch

        self._cuda = torch.cuda
        self._limit_bytes: int | None = None
        self._loaded = False
        if cap_bytes is not None:
            self._limit_bytes = max(0, cap_bytes - CONTEXT_BYTES)
            total_bytes = self._cuda.mem_get_info()[1]
            self._cuda.set_per_process_memory_fraction(min(1.0, self._limit_bytes / total_bytes))

    def free_bytes(self) -> int:
        """How many bytes torch may allocate in all, including what it holds now: what is free, but at most the cap."""
        free_bytes = self._cuda.mem_get_info()[0] + self._cuda.memory_reserved()
        if not self._loaded:
            free_bytes -= KERNEL_BYTES
        return max(0, free_bytes if self._limit_bytes is None else min(free_bytes, self._limit_bytes))

    def whole_bytes(self) -> int:
        """How many bytes torch could allocate if no other process used the device, but at most the cap."""
        whole_bytes = self._cuda.mem_get_info()[1] - CONTEXT_BYTES
        return max(0, whole_bytes if self._limit_bytes is None else min(whole_bytes, self._limit_bytes))

    @property
    def card(self) -> str:
        """The device's own name, which no other device has."""
        return str(self._cuda.get_device_properties(self._cuda.current_device()).uuid)

    def begin(self) -> int:
        """Begin to look for a peak. Returns how many bytes are allocated now."""
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        return self._cuda.memory_allocated()

    def peak_bytes(self) -> int:
        """The most bytes that were allocated since `begin`. Kernels that ran are loaded from now on."""
        self._cuda.synchronize()
        self._loaded = True
        return self._cuda.max_memory_allocated()

    def copied_bytes_per_s(self) -> float:
        """How fast page-locked host memory is copied to the device: the best of a few tries with 64 MiB."""
        import torch

        host = Pinned(_COPIED_BYTES, torch.device("cuda"))
        there = host.flat.to("cuda")
        return _COPIED_BYTES / _least_s(lambda: there.copy_(host.flat, non_blocking=True))

    def flop_per_s(self, dtype: str) -> float | None:
        """How fast two large matrices are multiplied in this dtype; None if there is no memory for them."""
        import torch

        kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
        try:
            matrix = torch.ones(_MATRIX_ROWS, _MATRIX_ROWS, dtype=kind, device="cuda")
            return 2 * _MATRIX_ROWS**3 / _least_s(lambda: matrix @ matrix)
        except RuntimeError:
            return None


def _least_s(work: Callable[[], object]) -> float:
    # The fastest of a few tries, because the first one loads kernels
    tries_s = []
    for _ in range(_TRIES):
        watch = Stopwatch()
        with watch:
            work()
        tries_s.append(watch.seconds())
    return min(tries_s)


class Stopwatch:
    """Adds up the seconds of with-blocks. On a CUDA device it takes the device's time by events and does not wait."""

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
    # An engine that needs torch has imported it by now; an engine without torch must not pay for the import.
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
