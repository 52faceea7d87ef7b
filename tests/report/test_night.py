"""The end of a sweep: which of its runs are whole, and one report of them all."""

import json
import os
from pathlib import Path

import pytest

from batchgen.report.night import Ended, name_of, tell
from tests.builders import finish_run, plan_run


def finished(folder, name):
    plan = plan_run(folder, ["a fox"] * 3, job__name=name)
    finish_run(plan)
    return plan.run.root


def test_what_is_not_whole_is_named_and_all_that_was_begun_is_in_one_report(tmp_path, capsys):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (finished(folder, folder.name) for folder in folders)
    missing = Path(tmp_path / "c" / "run")
    tell([Ended(first, 0), Ended(missing, 2), Ended(second, 3)])
    said = capsys.readouterr().err
    page = tmp_path / "a" / f"{first.name}+{second.name}.html"
    assert f"2 of 3 runs are whole; {missing} ended with exit code 2\n" in said
    assert f"look at all of them: {page}\n" in said
    report = json.loads(page.with_suffix(".json").read_text())
    assert [one["name"] for one in report["run"]["jobs"]] == ["a", "b"]


def test_a_report_that_cannot_be_written_is_told_and_raises_nothing(tmp_path, capsys):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (finished(folder, folder.name) for folder in folders)
    (tmp_path / "a" / f"{first.name}+{second.name}.html").mkdir()
    tell([Ended(first, 0), Ended(second, 0)])
    said = capsys.readouterr().err
    assert "2 of 2 runs are whole" in said and "no report of all of them was written: " in said


@pytest.mark.parametrize("name", [("one", "other"), ("same", "same")])
def test_runs_that_were_never_begun_have_no_report(name, tmp_path, capsys):
    tell([Ended(tmp_path / one, 2) for one in name])
    assert capsys.readouterr().err.startswith("batchgen: 0 of 2 runs are whole; ")
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_the_names_of_three_runs():
    assert name_of(["a", "b", "c"]) == "a+b+c.html"
    assert name_of(["a", "b", "c", "d", "e"]) == "a+b+c+2_more.html"


@pytest.mark.parametrize("letter", ["a", "\u00fc", "\u72d0", "\U0001f98a", "\udcff"])
def test_long_names_are_cut_by_bytes_and_stay_apart(letter, tmp_path):
    names = [letter * 60, letter * 59 + "b", letter * 60]
    found = {name_of(names), name_of([*names, "d"]), name_of(names[::-1][:2] + [letter * 61])}
    assert len(found) == 3
    for name in found:
        assert len(os.fsencode(name)) <= 200 and name.endswith(".html")
        (tmp_path / name).write_text("")


def test_a_sweep_of_runs_with_long_names_ends_with_its_report(tmp_path, capsys):
    folders = [tmp_path / f"{place}" for place in range(4)]
    ended = []
    for folder in folders:
        folder.mkdir()
        root = finished(folder, f"night{folder.name}")
        ended.append(Ended(root.rename(folder / ("\u72d0" * 70 + folder.name)), 0))
    tell([*ended, ended[0]])
    said = capsys.readouterr().err
    (page,) = folders[0].glob("*.html")
    assert f"look at all of them: {page}" in said
    assert len(json.loads(page.with_suffix(".json").read_text())["run"]["jobs"]) == 4
