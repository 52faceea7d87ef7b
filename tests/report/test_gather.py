"""What a report states of a finished, a running, a broken and an empty run."""

import json

import pytest

from batchgen.errors import UserError
from batchgen.files import to_json
from batchgen.machine.process import identity
from batchgen.paths import RunDir
from batchgen.report.gather import gather
from tests.builders import finish_run, flip, full_attempt, leave_attempt, plan_run
from tests.commands import front, planned, write_prompts

PROMPTS = [f"fox {number}" for number in range(12)]  # in three shards


def report(plan):
    return gather(plan.run, 1000).report


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The report of a run by the command, with a failed image and a row left out."""
    folder = tmp_path_factory.mktemp("real")
    prompts = folder / "prompts.jsonl"
    rows = [{"prompt": f"a fox, take {take}", "subject": "fox", "take": take} for take in range(20)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": ""}]))
    more = ("launch.workers=2", "job.on_bad_row=skip")
    assert front(folder / "run", prompts, *more, FAKE_NAN="000000000003-00").returncode == 3
    return gather(RunDir(folder / "run"), 1000)


def test_a_finished_run(real):
    found = real.report
    assert found["run"]["state"] == "done"
    assert found["run"]["problems"] == found["run"]["jobs"] == []
    assert found["run"]["began_at"] <= found["run"]["ended_at"] <= found["made_at"]
    sums = found["totals"]
    assert (sums["planned"], sums["ok"], sums["failed"], sums["open"]) == (20, 19, 1, 0)
    assert sums["shards"] == sums["shards_done"]
    assert sums["bytes"] > 0 < sums["images_per_s"]
    assert (found["failures"]["count"], found["rejects"]["count"]) == (1, 1)
    assert found["failures"]["shown"][0]["key"] == "000000000003-00"
    assert json.loads(to_json(found)) == found


def test_the_workers_of_a_real_run_and_their_series(real):
    found = real.report
    assert sum(one["images"] for one in found["workers"]) == 20
    assert {one["device"] for one in found["workers"] if one["images"]} == {"fake"}
    assert {one["state"] for one in found["workers"]} == {"ended"}
    assert {one["worker"] for one in found["series"]} == {one["id"] for one in found["workers"] if one["images"]}
    for one in found["series"]:
        assert len({len(values) for values in one.values() if isinstance(values, list)}) == 1
        assert min(one["t_s"]) > 0
    assert [one["size"] for one in found["policies"]] == ["64x64"]
    assert found["stages"]["denoise"] > 0


def test_the_shown_samples_of_a_real_run(real):
    samples = real.report["samples"]
    assert (samples["of"], samples["shown"], samples["columns"]) == (20, 20, ["subject", "take"])
    assert [one["key"] for one in samples["items"]] == [one.prompt.key for one in real.shown]
    first = samples["items"][0]
    run_dir = real.report["run"]["dir"]
    assert first["extract"] == f"python -m batchgen.export {run_dir} 000000000000-00 to=."
    assert first["columns"] == {"subject": "fox", "take": "0"}
    failed = samples["items"][3]
    assert (failed["status"], failed["extract"], failed["member"]) == ("failed", None, None)


def test_a_report_takes_no_lease_and_changes_nothing(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    before = {path: path.stat().st_mtime_ns for path in sorted(plan.run.root.rglob("*"))}
    report(plan)
    assert {path: path.stat().st_mtime_ns for path in sorted(plan.run.root.rglob("*"))} == before


def test_a_run_under_way_shows_what_is_on_the_disk_already(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    assert full_attempt(plan, 1).commit()
    leave_attempt(plan, 1)  # a batch of shard 0
    lease = {"worker": "w", "process": identity(), "token": "t", "rows": 2, "step_s": None, "beat": 1}
    plan.run.lease(0).write_text(to_json(lease))
    found = report(plan)
    assert (found["run"]["state"], found["run"]["ended_at"]) == ("running", None)
    assert (found["totals"]["ok"], found["totals"]["open"], found["totals"]["shards_done"]) == (6, 6, 1)
    items = found["samples"]["items"]
    assert [(one["shard"], one["extract"] is None) for one in items] == [("000000.tar", True)] * 2 + [
        ("000001.tar", False)
    ] * 4
    assert all(one.offset is not None for one in gather(plan.run, 1000).shown)
    plan.run.lease(0).unlink()
    assert report(plan)["run"]["state"] == "unfinished"


def test_an_empty_run(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 8)
    planned(tmp_path / "run", prompts)
    found = gather(RunDir(tmp_path / "run"), 1000).report
    assert (found["run"]["state"], found["totals"]["open"], found["samples"]["items"]) == ("empty", 8, [])
    assert found["series"] == found["policies"] == []


def test_a_broken_run_tells_what_is_broken_and_shows_the_rest(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    flip(plan.run.manifest(0), 40)
    plan.run.tar(1).unlink()
    plan.run.memory_log(2).write_bytes(b"torn")
    plan.run.worker_log("w").write_bytes(b"torn\n{")
    found = report(plan)
    assert found["run"]["state"] == "broken"
    assert len(found["run"]["problems"]) == 2
    assert (found["totals"]["ok"], found["totals"]["open"]) == (8, 4)
    assert [one["shard"] for one in found["samples"]["items"]] == ["000001.tar"] * 4 + ["000002.tar"] * 4


def test_a_lease_that_is_none_is_a_problem(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    plan.run.lease(0).mkdir()
    found = report(plan)
    assert "cannot be read" in found["run"]["problems"][0]
    assert found["totals"]["ok"] == 12


def test_without_a_plan_that_can_be_read_the_logs_still_tell(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    plan.run.worker_log("w").write_text('{"at":"2026-03-01T00:00:00+00:00","event":"error","error":"no such model"}\n')
    plan.run.plan.facts.write_bytes(b"{")
    found = report(plan)
    assert found["run"]["state"] == "broken"
    assert "cannot be read" in found["run"]["problems"][0]
    assert [one["text"] for one in found["events"]] == ["no such model"]
    assert found["run"]["name"] == "run"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        gather(RunDir(tmp_path), 1000)


def test_at_most_so_many_are_shown(tmp_path):
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan)
    found = gather(plan.run, 5)
    assert [one["key"] for one in found.report["samples"]["items"]] == [one.prompt.key for one in found.shown]
    assert (found.report["samples"]["of"], found.report["samples"]["shown"]) == (12, 5)
