"""When a worker begins to load: the starts of many workers are spread, so that not all read the same files at once."""

import threading

from batchgen.errors import StoppedError
from batchgen.events import EventLog

_FEW = 8  # workers that are not spread unless launch.spread_s is set
_WORKER_S = 0.25
_MOST_S = 60.0


def start_delay_s(place: tuple[int, int], spread_s: float | None, is_late: bool) -> float:
    """How many seconds a worker waits. `place`: its rank and the number of workers; `spread_s`: launch.spread_s.

    One that is late, because others are at work already, waits only if launch.spread_s is set.
    """
    rank, world = place
    if spread_s is None:
        spread_s = min(_MOST_S, _WORKER_S * world) if world >= _FEW and not is_late else 0.0
    return spread_s * rank / world


def await_turn(delay_s: float, log: EventLog, stop: threading.Event) -> None:
    """Wait, and note that in the log. Raises StoppedError when `stop` is set meanwhile."""
    if not delay_s:
        return
    log.add("spread", seconds=round(delay_s, 2))
    if stop.wait(delay_s):
        raise StoppedError("stopped before the model was loaded; the same command goes on")
