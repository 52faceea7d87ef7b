"""One report of several runs: sums, and lists whose entries name their job."""

from batchgen.report.gather import gather
from batchgen.report.jobs import together
from batchgen.report.made import POINTS
from tests.builders import finish_run, plan_run


def reports(tmp_path, *changes):
    found = []
    for place, changed in enumerate(changes):
        (tmp_path / str(place)).mkdir()
        plan = plan_run(tmp_path / str(place), [{"prompt": "fox", f"column{place}": 1}] * 3, **changed)
        finish_run(plan, failed={"000000000001-00"})
        found.append(gather(plan.run, 100).report)
    return found


def test_one_run_alone_stays_as_it_is(tmp_path):
    (one,) = reports(tmp_path, {})
    assert together([one]) is one


def test_a_night_of_two_jobs(tmp_path):
    parts = reports(tmp_path, {"job__name": "a", "job__steps": 2}, {"job__name": "b", "job__steps": 3})
    found = together(parts)
    assert found.keys() == parts[0].keys()
    assert (found["run"]["name"], found["run"]["state"]) == ("a, b", "done")
    assert (found["totals"]["planned"], found["totals"]["ok"], found["totals"]["failed"]) == (6, 4, 2)
    assert [one["job"] for one in found["samples"]["items"]] == ["a"] * 3 + ["b"] * 3
    assert [one["job"] for one in found["failures"]["shown"]] == ["a", "b"]
    assert found["failures"]["reasons"][0]["count"] == found["failures"]["count"] == 2
    assert set(found["samples"]["columns"]) == {"column0", "column1"}
    assert "job.steps" not in found["settings"]
    assert found["settings"]["job.width"] == 64
    jobs = found["run"]["jobs"]
    assert [(one["name"], one["state"], one["settings"]["job.steps"]) for one in jobs] == [
        ("a", "done", 2),
        ("b", "done", 3),
    ]
    assert jobs[0]["totals"] == parts[0]["totals"]
    assert found["versions"] == parts[0]["versions"]


def test_jobs_of_one_name_are_numbered_and_the_worst_state_counts(tmp_path):
    parts = reports(tmp_path, {}, {})
    parts[1]["run"] |= {"state": "broken", "problems": ["shard 000000's tar is missing"]}
    found = together(parts)
    assert [one["name"] for one in found["run"]["jobs"]] == ["test (1)", "test (2)"]
    assert found["run"]["state"] == "broken"
    assert found["run"]["problems"] == ["test (2): shard 000000's tar is missing"]
    parts[1]["run"]["state"] = "empty"
    assert together(parts)["run"]["state"] == "unfinished"


def test_times_are_of_one_clock_and_points_stay_few(tmp_path):
    parts = reports(tmp_path, {}, {})
    count = 3000
    for part, began in zip(parts, ("2026-03-01T00:00:00+00:00", "2026-03-01T01:00:00+00:00"), strict=True):
        part["run"]["began_at"] = began
        peaks = [None if place % 2 else place for place in range(count)]
        line = {"worker": "w", "memory": "device", "t_s": [float(place) for place in range(count)], "peak_bytes": peaks}
        part["series"], part["series_of"] = [line], 1
    found = together(parts)
    first, second = found["series"]
    assert (first["job"], second["job"]) == ("test (1)", "test (2)")
    assert second["t_s"][0] >= 3600 > count > first["t_s"][-1]
    assert sum(len(one["t_s"]) for one in found["series"]) <= POINTS
    assert max(first["peak_bytes"]) == count - 2
    assert found["series_of"] == 2
