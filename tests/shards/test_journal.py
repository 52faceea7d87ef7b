"""An attempt's journal: its leading sound lines count, and nothing after them."""

from pathlib import Path

import pytest

from batchgen.plan.store import Plan
from batchgen.shards.journal import plan_of, read_journal, sound_prefix
from tests.builders import flip, leave_attempt, plan_run

PROMPTS = [f"fox {number}" for number in range(6)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """One shard of three batches of two."""
    return plan_run(tmp_path, PROMPTS, output__batches_per_shard=3)


def test_a_journal_cut_anywhere_still_gives_its_whole_lines(plan: Plan) -> None:
    journal = leave_attempt(plan, 2).files.journal
    data = journal.read_bytes()
    ends = {at + shift for at, byte in enumerate(data) if byte == 10 for shift in (0, 1)}
    for length in sorted(ends | set(range(0, len(data), 61))):
        journal.write_bytes(data[:length])
        found = read_journal(journal)
        lines = data[:length].count(b"\n")
        assert (found is None) == (lines == 0), length
        assert found is None or len(found.records) == lines - 1, length


def test_nothing_counts_after_a_journal_line_that_is_missing(plan: Plan) -> None:
    journal = leave_attempt(plan, 3).files.journal
    header, first, _, last = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(header + first + last)
    found = read_journal(journal)
    assert found is not None
    assert found.rows == 2


def test_the_header_ties_a_journal_to_its_run_plan_and_attempt(plan: Plan) -> None:
    attempt = leave_attempt(plan, 2)
    found = read_journal(attempt.files.journal)
    assert found is not None
    assert plan_of(found.header) == (plan.run_id, plan.shard(0)[1])
    assert found.header["attempt"] == attempt.files.attempt
    assert (found.rows, found.tar_end) == (4, attempt.files.tar.stat().st_size)


def test_a_journal_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") is None


def test_the_sound_prefix_ends_before_the_first_bytes_that_differ(plan: Plan) -> None:
    files = leave_attempt(plan, 3).files
    journal = read_journal(files.journal)
    assert journal is not None
    flip(files.tar, journal.records[1]["tar_start"])
    prefix = sound_prefix(files, *plan_of(journal.header))
    assert prefix is not None and prefix.rows == 2
    assert sound_prefix(files, "f" * 32, plan.shard(0)[1]) is None
