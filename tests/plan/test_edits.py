"""A prompt file that is not as it was planned: the first line that differs is told, and what may be done."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import ResumeError
from batchgen.plan.edits import FileChanges, refusal
from batchgen.prepare import prepare
from tests.builders import finish_run, make_config, plan_run

HEAD = "prompt,steps,seed,note\n"
CSV = HEAD + "fox,2,,a\nhen,3,7,b\n,2,,c\nowl,2,,d\n"


def told(tmp_path: Path, name: str, before: str | bytes, after: str | bytes, **overrides: Any) -> str:
    """What is said where a prompt file changed after its run was finished."""
    path = tmp_path / name
    config = make_config(tmp_path, job__prompts=str(path), **overrides)
    for content in (before, after):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if content is before:
            finish_run(plan_run(tmp_path, job__prompts=str(path), **overrides))
    with pytest.raises(ResumeError) as refused:
        prepare(plan_run_dir(tmp_path), config)
    return str(refused.value)


def plan_run_dir(tmp_path: Path) -> Any:
    from batchgen.paths import RunDir

    return RunDir(tmp_path / "run")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (CSV.replace("hen", "her"), "line 3 was 'hen' and is 'her' now"),
        (CSV.replace("hen,3", "hen,4"), "line 3, 'hen', has other settings or columns now"),
        (CSV.replace("3,7", "3,8"), "line 3, 'hen', has other settings or columns now"),
        (CSV.replace(",2,,a", ",2,,z"), "line 2, 'fox', has other settings or columns now"),
        (CSV.replace("hen,3", "hen,-3"), "line 3 was 'hen' and cannot be used (steps must be between 1 and 1000"),
        (CSV.replace("\n,2", "\nape,2"), "line 4 was left out and is 'ape' now"),
        (HEAD + "fox,2,,a\nowl,2,,d\n", "line 3 was 'hen' and is 'owl' now"),
        (HEAD + "fox,2,,a\nhen,3,7,b\n", "line 5 was 'owl' and is gone"),
        (HEAD, "line 2 was 'fox' and is gone"),
        (HEAD + "ape,2,,a\n" + CSV.removeprefix(HEAD), "line 2 was 'fox' and is 'ape' now"),
        (CSV.replace("\n", "\r\n"), "no prompt differs, but its bytes do"),
        (CSV.replace("\n", "\r\n") + "ape,2,,\r\n", "rows were added, but its earlier bytes changed too"),
        (CSV.replace("prompt,", "word,"), "it cannot be read now: "),
        (CSV.removesuffix("\n") + "more\nape,2,,\n", "line 5, 'owl', has other settings or columns now"),
    ],
)
def test_the_first_line_that_differs_is_told(tmp_path: Path, after: str, expected: str) -> None:
    said = told(tmp_path, "p.csv", CSV, after)
    assert f"{tmp_path / 'p.csv'}: edited: {expected}" in said
    assert "put the edited file back as it was, or start a new run with another run_dir=DIR" in said
    assert len(said.splitlines()) == 2


def test_a_last_line_that_was_continued_is_an_edit(tmp_path: Path) -> None:
    said = told(tmp_path, "p.txt", "fox\nhen", "fox\nhens\nowl\n", extend=True)
    assert "edited: line 2, which was planned, reads otherwise with what was added after it" in said


def test_what_cannot_grow_says_what_is_possible(tmp_path: Path) -> None:
    before, after = json.dumps(["fox"]), json.dumps(["fox", "hen"])
    said = told(tmp_path, "p.json", before, after, extend=True)
    assert "rows were added, but a .json file cannot grow in a run: put them into a file of their own" in said


def test_a_file_that_was_packed_anew_says_how_to_add_to_it(tmp_path: Path) -> None:
    before, after = gzip.compress(b"fox\n" * 9), gzip.compress(b"fox\n" * 9 + b"hen\n")
    assert "add them by `gzip -c MORE >> FILE`" in told(tmp_path, "p.txt.gz", before, after, extend=True)


def test_beyond_the_limit_nothing_is_known_of_the_rows(tmp_path: Path) -> None:
    said = told(tmp_path, "p.txt", "fox\nhen\nowl\n", "fox\nhen\nape\n", job__limit=2)
    assert "its planned prompts are the same, but what follows line 2 is not" in said


def test_a_file_that_is_named_no_more_or_gone_is_told_apart(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("ape\n")
    both = [str(tmp_path / "prompts.jsonl"), str(other)]
    finish_run(plan := plan_run(tmp_path, ["fox"], job__prompts=both))
    config = make_config(tmp_path, ["fox"])
    with pytest.raises(ResumeError, match=r"other\.txt: not named in job\.prompts"):
        prepare(plan.run, config)
    other.unlink()
    with pytest.raises(ResumeError, match=r"other\.txt: gone"):
        prepare(plan.run, config)


@pytest.mark.parametrize(
    ("settings", "edited", "gone", "more", "extend", "advice"),
    [
        ([], [], [], [], False, None),
        ([], [], [], ["c: new"], True, None),
        ([], [], [], ["c: new"], False, "extend=true adds the new rows to it"),
        (["a: 1 -> 2"], [], [], ["c: new"], True, "set a=1"),
        (['a: "x y" -> 2', "b: null -> 1", 'c: "dpm++" -> "ddim"', 'd: "" -> "x"'], [], [], [], True,
         """set 'a="x y"' b=null c=dpm++ 'd=""'"""),
        (['a: "a...b" -> 2'], [], [], [], True, "set it back"),
        (["model.path=x: its files have changed"], [], [], [], True, "set it back"),
        (["a: 1 -> 2"], ["b: edited"], [], ["c: new"], False,
         "set a=1, put the edited file back as it was, extend=true adds the new rows to it"),
        ([], [], ["d: gone"], [], True, "put the missing file back or name it in job.prompts"),
    ],
)  # fmt: skip
def test_the_advice_is_about_what_changed(
    settings: list[str], edited: list[str], gone: list[str], more: list[str], extend: bool, advice: str | None
) -> None:
    said = refusal(settings, FileChanges(edited, gone, more, []), extend)
    assert (said and said.partition("Nothing was changed: ")[2]) == advice
