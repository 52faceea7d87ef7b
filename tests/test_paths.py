"""The names in a run directory: each is written and found again by paths.py alone."""

from pathlib import Path

import pytest

from batchgen.paths import RunDir, struck, why_file

ATTEMPT = "0123456789abcdef" * 2


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create_directories()
    return run


def test_a_plan_comes_first_and_its_extensions_by_number(run: RunDir) -> None:
    for name in ("plan-010", "plan-002", "plan", "plan-1000", "plan-x", "plan.txt"):
        (run.root / name).mkdir()
    assert [plan.root.name for plan in run.plans()] == ["plan", "plan-002", "plan-010", "plan-1000"]
    assert run.extension(2) == run.plans()[1]


def test_attempts_are_found_by_any_of_their_files(run: RunDir) -> None:
    first, second = run.attempt(3, ATTEMPT), run.attempt(12, ATTEMPT)
    first.at.touch()
    second.tar.touch()
    second.journal.touch()
    (run.work / "000003.txt").touch()
    assert run.attempts() == [first, second] and run.attempts(12) == [second]


def test_committed_shards_are_told_by_their_manifests_and_tars(run: RunDir) -> None:
    run.manifest(0).touch()
    run.tar(0).touch()
    run.tar(1_000_000).touch()
    assert (run.committed(), run.tars()) == ({0}, {0, 1_000_000})
    assert run.shard_files() == {0: [run.manifest(0), run.tar(0)], 1_000_000: [run.tar(1_000_000)]}


def test_marks_and_the_leases_of_shards_are_told_apart(run: RunDir) -> None:
    marks = {run.new_mark(), run.new_mark()}
    for path in (*marks, run.lease(2), run.lease(0), run.probe_lease("cpu")):
        path.touch()
    assert set(run.marks()) == marks and run.shard_leases() == [run.lease(0), run.lease(2)]


def test_a_failure_that_was_struck_does_not_count(run: RunDir) -> None:
    assert run.failure_files() == []
    run.failures.mkdir()
    path = run.failure(4, ATTEMPT)
    path.touch()
    assert run.failure_files() == [path]
    path.rename(struck(path))
    assert run.failure_files() == []


def test_sizes_with_figures_are_those_of_the_kind(run: RunDir) -> None:
    for kind, width in (("NVIDIA H100", 512), ("NVIDIA H100", 64), ("cpu", 128)):
        run.figures(kind, width, 64).touch()
    run.policy("NVIDIA H100", 1024, 64).touch()
    assert run.sizes_with_figures("NVIDIA H100") == [(64, 64), (512, 64)]


def test_logs_of_workers_are_events_and_what_they_print(run: RunDir) -> None:
    run.worker_log("w").touch()
    run.worker_output("w").touch()
    assert run.event_logs() == [run.worker_log("w")]


def test_a_note_why_a_shard_was_set_aside_is_beside_it(tmp_path: Path) -> None:
    assert why_file(tmp_path, 5).name == "000005.why.json"
