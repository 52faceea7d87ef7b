"""The meters without a GPU, and the gauge by a simulated one."""

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.machine.meters import CONTEXT_BYTES, KERNEL_BYTES, Gauge, Stopwatch, read_meters

GIB = 1 << 30


def test_without_a_gpu_only_the_hosts_figures_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    meters = read_meters()
    assert meters.host_rss_bytes > 1 << 20
    assert meters.peak_allocated_bytes is None and meters.device_free_bytes is None and meters.host_pinned_bytes is None


def test_a_stopwatch_adds_up_its_blocks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    now = iter([10.0, 11.5, 20.0, 20.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    assert watch.seconds() == 0
    for _ in range(2):
        with watch:
            pass
    assert watch.seconds() == 1.75


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A card of 24 GiB, of which 20 are free and one more is kept by torch."""
    card: Any = SimpleNamespace(
        mem_get_info=lambda: (20 * GIB, 24 * GIB),
        memory_reserved=lambda: GIB,
        set_per_process_memory_fraction=lambda share: setattr(card, "share", share),
        synchronize=lambda: None,
        reset_peak_memory_stats=lambda: None,
        memory_allocated=lambda: 5,
        max_memory_allocated=lambda: 7,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=card))
    return card


def test_what_is_free_includes_what_torch_holds_and_leaves_room_for_kernels(cuda: Any) -> None:
    gauge = Gauge()
    assert gauge.free_bytes() == 21 * GIB - KERNEL_BYTES
    assert gauge.whole_bytes() == 24 * GIB - CONTEXT_BYTES
    assert (gauge.begin(), gauge.peak_bytes()) == (5, 7)
    assert gauge.free_bytes() == 21 * GIB, "kernels that ran are on the device"


def test_a_cap_holds_for_torch_and_for_what_is_free(cuda: Any) -> None:
    gauge = Gauge(6 * GIB)
    assert gauge.free_bytes() == gauge.whole_bytes() == 6 * GIB - CONTEXT_BYTES
    assert cuda.share == (6 * GIB - CONTEXT_BYTES) / (24 * GIB)
