"""What worker logs tell: when each worker was there, what it waited for, and what happened, once with a count."""

from typing import Any

from batchgen.files import seal, to_json
from batchgen.paths import RunDir
from batchgen.report.told import MOST, Told, in_order, read_told

POLICY = {"micro_batch": 4}


def log(run, worker, *events, torn=b""):
    run.worker_logs.mkdir(parents=True, exist_ok=True)
    lines = [
        to_json({"at": f"2026-03-01T00:{place:02d}:00+00:00", "event": name} | facts)
        for place, (name, facts) in enumerate(events)
    ]
    run.worker_log(worker).write_bytes("\n".join(lines).encode() + b"\n" + torn)


def test_the_stay_and_the_waits_of_a_worker(tmp_path):
    run = RunDir(tmp_path)
    beginning: list[tuple[str, dict[str, Any]]] = [
        ("start", {}),
        ("loaded", {}),
        ("policy", {"width": 64, "height": 64, "policy": POLICY}),
    ]
    log(run, "a", *beginning, ("shard", {}), ("made", {}), ("policy", {"policy": POLICY}), ("made", {}), ("end", {}))
    told = read_told(run)
    stay = told.stays["a"]
    assert (stay.ended_s - stay.began_s, stay.left) == (7 * 60, True)
    assert told.waits == {"loading the model": 60, "choosing a policy": 60, "beginning": 60}


def test_a_worker_that_still_works_has_not_left_and_torn_lines_are_left_out(tmp_path):
    run = RunDir(tmp_path)
    log(run, "a", ("start", {}), ("loaded", {}), ("shard", {}), torn=b'7\n{"event":"made","at":4}\n{"at":"2026-')
    told = read_told(run)
    assert not told.stays["a"].left
    assert told.waits == {"loading the model": 60, "choosing a policy": 60}


def test_policies_come_with_why_they_were_chosen(tmp_path):
    run = RunDir(tmp_path)
    chosen = ("chosen", {"width": 64, "height": 64, "reason": "fastest that fits"})
    used = ("policy", {"width": 64, "height": 64, "policy": POLICY})
    said = {"width": 64, "height": 64, "stage": "denoise", "said": "tried to allocate 2 GiB", "policy": POLICY}
    refused = [("out_of_memory", said | {"next": POLICY}), ("out_of_memory", said | {"next": {"micro_batch": 2}})]
    replaced = ("policy_replaced", {"wanted": POLICY, "used": {"micro_batch": 1}, "why": "no xformers"})
    log(run, "a", ("start", {}), chosen, used, *refused, replaced)
    log(run, "b", ("start", {}), chosen, used)
    told = read_told(run)
    found = [(one["size"], one["policy"]["micro_batch"], one["why"], one["count"]) for one in in_order(told.policies)]
    assert found == [
        ("64x64", 4, "fastest that fits", 2),
        ("64x64", 2, "stepped down: out of memory in denoise", 1),
        ("", 1, "the device cannot do what was chosen: no xformers", 1),
    ]
    assert [(one["what"], one["text"], one["count"]) for one in in_order(told.events)] == [
        ("out of memory", "64x64 px, denoise: tried to allocate 2 GiB", 2)
    ]


def test_what_differs_only_in_numbers_is_one_event_with_its_first_time():
    told = Told()
    told.note("2026-03-01T00:02:00", "b", "out of memory", "tried 2.5 GiB")
    told.note("2026-03-01T00:01:00", "a", "out of memory", "tried 3 GiB")
    told.note("2026-03-01T00:03:00", "c", "worker crashed", "SIGSEGV")
    assert in_order(told.events) == [
        {"at": "2026-03-01T00:01:00", "worker": "a", "what": "out of memory", "text": "tried 3 GiB", "count": 2},
        {"at": "2026-03-01T00:03:00", "worker": "c", "what": "worker crashed", "text": "SIGSEGV", "count": 1},
    ]


def test_of_very_many_kinds_the_most_frequent_are_told():
    told = Told()
    for letter in range(300):
        for _ in range(1 + (letter == 299)):
            told.note("2026", "a", "error", chr(0x4E00 + letter))
    found = in_order(told.events)
    assert len(found) == MOST
    assert max(one["count"] for one in found) == 2


def test_crashes_that_were_recorded_are_events(tmp_path):
    run = RunDir(tmp_path)
    run.failures.mkdir()
    run.failure(3, "a" * 32).write_bytes(seal({"at": "2026-03-01", "worker": "w", "reason": "SIGSEGV"}))
    run.failure(4, "b" * 32).write_bytes(b"torn")
    assert [(one["what"], one["text"]) for one in in_order(read_told(run).events)] == [("worker crashed", "SIGSEGV")]


def test_a_run_without_logs_tells_nothing(tmp_path):
    told = read_told(RunDir(tmp_path))
    assert (told.stays, in_order(told.events)) == ({}, [])
