"""Whether a store answers, and when it is tried again."""

import time

import pytest

from batchgen.stores.outage import Outage


def test_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    outage = Outage()
    assert (outage.pause_s(), outage.lasts_s(), outage.is_over()) == (0.0, 0.0, False)
    assert outage.failed(), "the first in a row"
    pauses = []
    for _ in range(12):
        now_s += outage.pause_s()
        assert outage.pause_s() == 0.0
        assert not outage.failed()
        pauses.append(outage.pause_s())
    assert 1 < pauses[0] < 3 and pauses[-1] <= 375 and max(pauses) > 200
    assert outage.lasts_s() == now_s - 1000.0
    assert outage.is_over() and not outage.is_over()
    assert outage.pause_s() == 0.0
