"""A worker's log: what was added comes back, whatever a crash left of the rest."""

from pathlib import Path

import pytest

from batchgen.events import EventLog, now, read_events, seconds_of


def test_events_come_back_in_order_and_torn_ones_are_left_out(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "worker.jsonl")
    log.add("start", rank=3)
    with log.path.open("ab") as file:
        file.write(b'{"event":"made","sha\n\xff\xfe\n[1]\n\n')
    log.add("commit", shard=7)
    log.close()
    assert [{**event, "at": ""} for event in read_events(log.path)] == [
        {"at": "", "event": "start", "rank": 3},
        {"at": "", "event": "commit", "shard": 7},
    ]


def test_a_figure_that_is_not_a_number_is_left_out_and_raises_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "worker.jsonl")
    log.add("growth", slope=float("nan"))
    log.add("end")
    log.close()
    assert [event["event"] for event in read_events(log.path)] == ["end"]


def test_a_log_that_is_not_there_is_an_error_of_its_reading(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        list(read_events(tmp_path / "none.jsonl"))


def test_the_time_of_a_log_is_read_as_seconds() -> None:
    assert seconds_of("1970-01-01T00:01:30.500+00:00") == 90.5
    assert seconds_of(now()) > 1.7e9
