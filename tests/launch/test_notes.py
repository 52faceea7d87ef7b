"""The notes in slurm/: who notes first has won, and what is damaged is named."""

import pytest

from batchgen.errors import BrokenRunError
from batchgen.launch import notes
from batchgen.paths import RunDir


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path)
    run.slurm.mkdir()
    return run


def test_of_two_that_read_the_same_only_the_first_note_counts(run):
    before = notes.submissions(run)
    assert notes.note(run, before, "7", 4, "8")
    assert not notes.note(run, before, "9", 4, "10")
    (made,) = notes.submissions(run)
    assert (made.job, made.elements, made.collector) == ("7", 4, "8")
    assert notes.note(run, [made], "11", 1, "12")
    assert [one.job for one in notes.submissions(run)] == ["7", "11"]


def test_without_a_folder_nothing_was_submitted(tmp_path):
    assert notes.submissions(RunDir(tmp_path / "nothing")) == []
    assert notes.checks(RunDir(tmp_path / "nothing")) == []


def test_a_damaged_note_is_named_and_not_passed_over(run):
    (run.slurm / "001.json").write_text("{")
    with pytest.raises(BrokenRunError, match=r"001\.json cannot be read"):
        notes.submissions(run)


def test_the_last_check_comes_last_and_half_a_one_is_left_out(run):
    (run.slurm / "check-8.json").write_text('{"job":"8","code":75,"ended_at":20}')
    (run.slurm / "check-12.json").write_text('{"job":"12","code":0,"ended_at":10}')
    (run.slurm / "check-13.json").write_text('{"job":')
    assert [(one.job, one.code) for one in notes.checks(run)] == [("12", 0), ("8", 75)]
