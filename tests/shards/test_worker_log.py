"""What a worker's log tells, over made-up logs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from batchgen.shards.ends import Ends
from batchgen.shards.worker_log import Told, Unit, read_log

START: dict[str, Any] = {"event": "start", "rank": 3, "pid": 9, "host": "node1", "element": "17_2"}
LOADED = {"event": "loaded", "device": "H200"}
SHARD = {"event": "shard", "shard": 7, "rows_resumed": 4}
MADE = {"event": "made", "shard": 7, "batch": 1, "images": 8}


def log(*events: dict[str, Any], ahead_s: float = 0.0) -> Told:
    """The log of a worker that wrote an event every 10 s from 1000 s on; the server's clock is `ahead_s` of its own."""
    stamped = [
        {"at": datetime.fromtimestamp(1000 + 10 * place, UTC).isoformat()} | event for place, event in enumerate(events)
    ]
    data = "".join(json.dumps(event) + "\n" for event in stamped).encode()
    told = read_log("node1-3-0123abcd", Ends(data, b"", 1000.0 + 10 * (len(events) - 1) + ahead_s))
    assert told is not None
    return told


def test_who_it_is_and_what_it_works_on() -> None:
    told = log(START, LOADED, SHARD, MADE, MADE)
    assert (told.host, told.rank, told.pid, told.element, told.device) == ("node1", 3, 9, "17_2", "H200")
    assert (told.shard, told.rows, told.does, told.left) == (7, 20, None, None)
    assert told.units == (Unit(7, 1, 8, 1020, 1030), Unit(7, 1, 8, 1030, 1040))


def test_times_are_by_the_file_servers_clock() -> None:
    told = log(START, LOADED, SHARD, MADE, ahead_s=500)
    assert (told.started_s, told.units[0].end_s, told.written_s) == (1500, 1530, 1530)


def test_events_that_are_not_known_change_nothing() -> None:
    told = log(START, {"event": "staged"})
    assert (told.does, told.since_s) == ("loading the model", 1000)


def test_logs_of_earlier_versions_have_no_element() -> None:
    told = log({"event": "start", "rank": 3, "pid": 9})
    assert (told.host, told.element, told.does, told.since_s) == ("node1", None, "loading the model", 1000)


@pytest.mark.parametrize(
    ("last", "left", "error"),
    [
        ({"event": "end"}, "ended", None),
        ({"event": "left"}, "ended", None),
        ({"event": "drain"}, "drained", None),
        ({"event": "error", "error": "bad"}, "crashed", "bad"),
        ({"event": "error", "error": "bad", "crashed": True}, "crashed", "bad"),
        ({"event": "error", "error": "LoRA a is gone", "crashed": False}, "stopped", "LoRA a is gone"),
        ({"event": "growth"}, None, None),
    ],
)
def test_how_it_left(last: dict[str, Any], left: str | None, error: str | None) -> None:
    told = log(START, LOADED, SHARD, MADE, last)
    assert (told.left, told.error) == (left, error)


@pytest.mark.parametrize("tail", [b'sted": 3}\n', b"\xff\n", b'{"event": "made"}\n', b'{"at": 3, "event": "made"}\n'])
def test_torn_lines_are_passed_over(tail: bytes) -> None:
    head = b'{"at":"1970-01-01T00:16:40+00:00","event":"start"}\n'
    told = read_log("a-0-b", Ends(head, tail, 1000.0))
    assert told is not None and told.does == "loading the model"
    assert read_log("a-0-b", Ends(b"", tail, 1000.0)) is None
