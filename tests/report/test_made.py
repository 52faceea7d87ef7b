"""What memory logs tell: sums, and series that are thinned and keep their peaks."""

from datetime import UTC, datetime, timedelta

from batchgen.report.made import POINTS, SERIES, Tally, pauses_s, series

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
BEGAN_S = BEGAN.timestamp()


def unit(start_s, seconds=4.0, worker="a", peak=1000, **changes):
    return {
        "started_at": (BEGAN + timedelta(seconds=start_s)).isoformat(),
        "worker": worker,
        "host": "node",
        "device": "H100",
        "images": 8,
        "seconds": seconds,
        "stage_seconds": {"encode": 0.5, "denoise": 2.0, "decode": 1.0, "write": 9.0},
        "predicted_peak_bytes": 1200,
        "peak_allocated_bytes": peak,
        "device_used_bytes": 1500,
        "host_rss_bytes": 70,
        "ooms": 1,
        "retries": 2,
        **changes,
    }


def tally(*records):
    found = Tally()
    found.add(records)
    return found


def test_units_add_up():
    found = tally(unit(0), unit(5), unit(0, worker="b"))
    assert found.stages == {"encode": 1.5, "denoise": 6.0, "decode": 3.0, "write": 27.0}
    assert (found.ooms, found.retries) == (3, 6)
    made = found.workers["a"]
    assert (made.images, made.busy_s, made.between_s) == (16, 8.0, 1.0)
    assert (made.began_s, made.ended_s) == (BEGAN_S, BEGAN_S + 9)
    assert pauses_s(made) == 1.0


def test_a_record_that_is_not_one_is_left_out():
    broken = [unit(0) | {"seconds": None}, {"worker": "a"}, unit(0) | {"started_at": "yesterday"}, 7]
    found = tally(*broken, unit(0))
    assert found.workers["a"].images == 8
    assert found.ooms == 1


def test_a_series_tells_speed_and_memory_over_time():
    (found,) = series(list(tally(unit(10, peak=2000), unit(0)).workers.values()), BEGAN_S - 100)
    assert found == {
        "worker": "a",
        "memory": "device",
        "t_s": [104.0, 114.0],
        "images_per_s": [2.0, 2.0],
        "peak_bytes": [1000, 2000],
        "predicted_bytes": [1200, 1200],
        "device_used_bytes": [1500, 1500],
    }


def test_on_the_cpu_a_series_has_the_memory_of_the_host():
    record = unit(0, predicted_peak_bytes=None, peak_allocated_bytes=None, device_used_bytes=None)
    (found,) = series(list(tally(record).workers.values()), BEGAN_S)
    assert (found["memory"], found["peak_bytes"]) == ("host", [70])
    assert found["predicted_bytes"] == found["device_used_bytes"] == [None]


def test_many_units_become_few_points_that_keep_the_peak():
    records = [unit(4.0 * place, peak=5000 if place == 7777 else 1000) for place in range(10_000)]
    (found,) = series(list(tally(*records).workers.values()), BEGAN_S)
    assert POINTS / 2 < len(found["t_s"]) <= POINTS
    assert max(found["peak_bytes"]) == 5000
    assert found["peak_bytes"].count(5000) == 1
    assert found["t_s"] == sorted(found["t_s"])
    assert set(found["images_per_s"]) == {2.0}


def test_of_many_workers_those_that_made_most_are_shown():
    records = [unit(place, worker=f"w{number:03d}") for number in range(100) for place in range(number + 1)]
    found = series(list(tally(*records).workers.values()), BEGAN_S)
    assert [one["worker"] for one in found] == [f"w{number:03d}" for number in range(100 - SERIES, 100)]
    assert sum(len(one["t_s"]) for one in found) <= POINTS


def test_no_units_are_no_series():
    assert series([], BEGAN_S) == []
