"""What workers meet is told while it happens, each kind once, from their logs."""

import pytest

from batchgen.events import EventLog
from batchgen.launch.notable import Notable, told
from tests.builders import plan_run

POLICY = {"micro_batch": 8, "decode_chunk": 4}
REFUSED = {"event": "out_of_memory", "stage": "denoise", "width": 64, "height": 32, "policy": POLICY}


@pytest.fixture
def plan(tmp_path):
    plan = plan_run(tmp_path, ["a prompt"])
    plan.run.create_directories()
    return plan


def test_each_kind_is_told_once(plan):
    notable = Notable(plan.run)
    logs = [EventLog(plan.run.worker_log(name)) for name in ("one", "two")]
    assert notable.look(["one", "two", "not there yet"]) == []
    for log in logs:
        log.add("start")
        for place in range(3):
            log.add("not_ok", images=1, key=f"k{place}", status="failed", reason="it is black")
    [line] = notable.look(["one", "two"])
    assert line == f"image k0 is left out (failed): it is black (said once; {plan.run.worker_log('one')} has all)"
    logs[1].add("not_ok", images=1, key="k9", status="failed", reason="it is not finite")
    logs[1].add("made", shard=0)
    [line] = notable.look(["one", "two"])
    assert "image k9 is left out (failed): it is not finite" in line
    assert notable.look(["one", "two"]) == []


def test_a_line_that_is_not_whole_yet_is_told_later(plan):
    notable, path = Notable(plan.run), plan.run.worker_log("w")
    path.write_bytes(b'{"event": "not_staged", "why": "no ro')
    assert notable.look(["w"]) == []
    with path.open("ab") as file:
        file.write(b'om"}\n[1]\nno json\n{"event": "out_of_memory"}\n{}\n')
    assert [line.partition(" (said")[0] for line in notable.look(["w"])] == [
        "the model is not copied to launch.scratch: no room"
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (REFUSED | {"next": POLICY | {"micro_batch": 4}},
         "out of memory in denoise at 64x32 px: it goes on with micro_batch 8 -> 4"),
        (REFUSED | {"next": POLICY}, "out of memory in denoise at 64x32 px: it is tried once more"),
        (REFUSED | {"next": None}, "out of memory in denoise at 64x32 px: no smaller policy is left"),
        ({"event": "policy_replaced", "why": "no xformers"}, "a part of the policy cannot be used here: no xformers"),
        ({"event": "given_up", "shard": 3, "reason": "SIGSEGV"}, "images of shard 3 crash and are left out: SIGSEGV"),
        ({"event": "load_failed", "cause": "stale"}, None),
        ({"event": "not_ok", "reason": "tried again in a later shard"}, None),
        ({"event": "commit"}, None),
    ],
)  # fmt: skip
def test_what_is_told_of_an_event(event, line):
    found = told(event)
    assert (found and found[1]) == line
