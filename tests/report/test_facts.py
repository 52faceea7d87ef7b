"""The sums and lists of a report."""

from collections import Counter
from typing import Any

from batchgen.report.facts import iso, made_with, most_common, rejects, stays_of, totals, waits, workers
from batchgen.report.made import Tally
from batchgen.report.picks import Picks
from batchgen.report.told import Stay, Told
from batchgen.shards.crew import Crew, Member
from tests.builders import plan_run
from tests.report.test_made import BEGAN_S, tally, unit


def made(**counts):
    picks = Picks()
    for status, count in counts.items():
        for number in range(count):
            picks.add(0, f"{status}{number}", status, status)
    return picks


def test_what_is_not_made_is_open_and_pauses_between_starts_do_not_count():
    stays = {"a": Stay(0, 100, True), "b": Stay(50, 150, True), "c": Stay(1000, 1050, True)}
    found = totals(20, made(ok=10, failed=3, filtered=1), tally(unit(0), unit(5, worker="b")), stays, None)
    assert {name: found[name] for name in ("planned", "ok", "failed", "filtered", "open")} == {
        "planned": 20, "ok": 10, "failed": 3, "filtered": 1, "open": 6,
    }  # fmt: skip
    assert (found["wall_s"], found["device_s"], found["workers"]) == (200.0, 250.0, 3)
    assert found["images_per_s"] == 16 / 200


def test_only_workers_on_a_gpu_cost():
    stays = {"a": Stay(0, 3600, True), "b": Stay(0, 1800, True)}
    on_host = unit(0, worker="b", peak_allocated_bytes=None)
    both = tally(unit(0), on_host)
    assert {name: totals(9, Picks(), both, stays, 2.5)[name] for name in ("gpu_hours", "cost")} == {
        "gpu_hours": 1.0,
        "cost": 2.5,
    }
    assert totals(9, Picks(), both, stays, None)["cost"] is None
    assert totals(9, Picks(), tally(on_host), stays, 2.5)["gpu_hours"] is None
    nothing = totals(9, Picks(), Tally(), {}, None)
    assert (nothing["wall_s"], nothing["images_per_s"], nothing["open"]) == (0.0, None, 9)


def test_a_worker_whose_log_is_gone_was_there_while_it_made_units():
    found = stays_of(Told({"a": Stay(BEGAN_S - 5, BEGAN_S + 1, True)}), tally(unit(0), unit(2, worker="b")))
    assert found == {"a": Stay(BEGAN_S - 5, BEGAN_S + 4, True), "b": Stay(BEGAN_S + 2, BEGAN_S + 6, False)}


def test_waits_are_those_that_the_records_tell():
    told = Told({"a": Stay(BEGAN_S - 60, BEGAN_S + 40, True)}, {"loading the model": 60.0, "beginning": 0.5})
    units = tally(unit(0, seconds=6.0), unit(10, seconds=6.0))
    assert waits(told, units, stays_of(told, units)) == {
        "loading the model": 60.0,
        "other workers, after the last image": 24.0,
        "image files, the disk and all else between the stages": 5.0,
        "between two units (committing shards, taking the next one)": 4.0,
    }
    still = Told({"a": Stay(BEGAN_S, BEGAN_S + 40, left=False)})
    assert "other workers, after the last image" not in waits(still, units, stays_of(still, units))


def test_workers_are_listed_with_what_they_made_and_do():
    member = Member("b", "node2", "loading", "loading the model")
    crew = Crew((member, Member("a", "node", "ended", "ended")), frozenset(), {}, (), 0, 0.0)
    assert workers(tally(unit(0), unit(5)), crew) == [
        {"id": "a", "host": "node", "device": "H100", "images": 16, "busy_s": 8.0, "images_per_s": 2.0,
         "state": "ended"},
        {"id": "b", "host": "node2", "device": None, "images": 0, "busy_s": 0.0, "images_per_s": None,
         "state": "loading the model"},
    ]  # fmt: skip
    assert [one["state"] for one in workers(tally(unit(0)), None)] == [None]
    assert len(workers(tally(*(unit(0, worker=f"w{number}") for number in range(600))), None)) == 500


def test_rows_that_could_not_be_used_are_told_with_their_reasons(tmp_path):
    rows: list[str | dict[str, Any]] = ["a fox", *({"prompt": ""} for _ in range(3)), {"prompt": "a", "seed": "x"}]
    plan = plan_run(tmp_path, rows, job__on_bad_row="skip")
    found = rejects(plan)
    assert found["count"] == len(found["shown"]) == 4
    assert found["shown"][0] == {"file": str(tmp_path / "prompts.jsonl"), "line": 2, "reason": "empty prompt"}
    assert [one["count"] for one in found["reasons"]] == [3, 1]
    plan.run.plan.rejects.write_bytes(b"torn {")
    assert rejects(plan) == {"count": 4, "reasons": [], "shown": []}
    assert len(most_common(Counter({str(number): 1 for number in range(99)}))) == 50


def test_a_run_states_its_settings_versions_and_model(tmp_path):
    found = made_with(plan_run(tmp_path, job__steps=3))
    assert found["settings"]["job.steps"] == 3
    assert found["versions"].keys() >= {"batchgen", "python", "pillow"}
    assert found["model"]["path"] == "tiny"
    assert found["model"]["fingerprint"]


def test_times_are_told_in_utc():
    assert (iso(0.0), iso(None)) == ("1970-01-01T00:00:00+00:00", None)
