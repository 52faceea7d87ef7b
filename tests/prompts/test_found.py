"""What a person sees of the columns of prompt files, before anything is made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchgen.config.schema import JobConfig
from batchgen.plan.planner import Planner
from batchgen.prompts import Found, Reading, read_prompts
from batchgen.types import Columns, PromptFile
from tests.builders import make_prompt
from tests.prompts.reading import parquet, write

JOB = JobConfig(name="test", prompts="-", width=64, height=64, guidance=5.0)


def found_in(paths: Sequence[Path], **settings: Any) -> Found:
    """What is found in the files as they are read."""
    found = Found()
    for _ in read_prompts([PromptFile(path) for path in paths], Reading(**settings), found=found):
        pass
    return found


def test_columns_that_became_fields_and_columns_that_only_travel(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "Prompt;CFG Scale;guidance;sampler;n;width;;x\na;7;8;ddim;2;500;;\n")
    found = found_in([path], columns=Columns(width=None))
    assert found.plain()["files"] == [
        {
            "file": str(path),
            "more_like_it": 0,
            "separator": ";",
            "fields": {"prompt": ["Prompt"], "guidance": ["guidance"]},
            "travel": {
                "CFG Scale": "guidance is in 'guidance'",
                "sampler": "",
                "n": "job.columns.images_per_prompt=n would use it",
                "width": "job.columns.width=null",
                "x": "",
            },
            "unread": {"": "it has no name"},
        }
    ]
    assert found.lines() == [
        ("columns", f"{path} (separated by ';'): prompt is 'Prompt', guidance is 'guidance'"),
        (
            "",
            "only travel into the samples' JSON: 'CFG Scale' (guidance is in 'guidance'), 'sampler', "
            "'n' (job.columns.images_per_prompt=n would use it), 'width' (job.columns.width=null), 'x'",
        ),
        ("", "are not read: '' (it has no name)"),
    ]


def test_objects_may_have_their_fields_in_different_members(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"text": "a", "x": 1}\n"b"\n{"caption": "c", "seed": 5}\n{"text": "d"}\n')
    (file,) = found_in([path]).plain()["files"]
    assert file["fields"] == {"prompt": ["text", "caption"], "seed": ["seed"]}
    assert file["travel"] == {"x": ""}


def test_what_of_a_parquet_file_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", parquet({"image": [b"\xff"], "text": ["a fox"]}))
    (file,) = found_in([path]).plain()["files"]
    assert (file["fields"], file["unread"]) == ({"prompt": ["text"]}, {"image": "it holds bytes"})


def test_files_with_the_same_columns_are_told_once(tmp_path: Path) -> None:
    same = [write(tmp_path / f"{number}.csv", "prompt,seed\na,1\n") for number in range(9)]
    text = write(tmp_path / "p.txt", "a\n")
    lines = found_in([*same, text]).lines()
    assert lines == [
        ("columns", f"{same[0]} and 8 like it: prompt is 'prompt', seed is 'seed'"),
        ("columns", f"{text}: each line or text is a prompt"),
    ]
    others = [write(tmp_path / f"x{number}.csv", f"prompt,x{number}\na,1\n") for number in range(9)]
    assert found_in(others).lines()[-1] == ("", "and 4 more kinds of files")


def test_many_columns_are_cut_short(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(500)]
    found = found_in([write(tmp_path / "p.csv", f"prompt,{','.join(names)}\n")])
    assert len(found.plain()["files"][0]["travel"]) == 200
    (_, (_, told)) = found.lines()
    assert told.endswith("'c11' and 188 more") and len(told) < 300


def test_the_example_is_the_first_prompt_on_two_lines() -> None:
    found = Found()
    first = make_prompt("k", prompt="a\nfox\x1b[2J " + "x" * 99, seed=9, negative_prompt="é", guidance=7.5)
    assert list(found.watch([first, make_prompt("l")])) == [first, make_prompt("l")]
    (label, text), (_, settings) = found.lines()
    assert (label, text) == ("example", "k: 'a fox\\x1b[2J " + "x" * 47 + "...'")
    assert settings == "seed 9, 64x64, 2 steps, guidance 7.5, negative prompt 'é'"
    assert json.loads(json.dumps(found.plain()))["example"]["seed"] == 9


def test_lines_that_look_like_comments_are_told_with_the_key_that_skips_them() -> None:
    found = Found(example=make_prompt(prompt="# my list"))
    assert 'job.comment="#"' in found.lines()[-1][1]


def test_notes_are_told_last() -> None:
    assert Found(notes=["so it is"]).lines() == [("note", "so it is")]


def test_a_column_that_no_row_up_to_the_limit_has_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c", "zzz": 5}\n')
    found = Found()
    rows = read_prompts([PromptFile(path)], Reading(Columns(seed="zzz")), found=found)
    assert len(list(found.watch(Planner(JOB).prompts(rows, 1)))) == 1
    (note,) = found.notes
    assert "job.columns.seed=zzz: there is no such column in any row up to job.limit" in note
    assert found_in([path], columns=Columns(seed="zzz")).notes == []


def test_a_column_that_is_named_for_files_without_columns_is_told(tmp_path: Path) -> None:
    found = Found()
    rows = read_prompts([PromptFile(write(tmp_path / "p.txt", "a\n"))], Reading(Columns(seed="zzz")), found=found)
    assert len(list(found.watch(Planner(JOB).prompts(rows, None)))) == 1
    assert found.notes == ["job.columns.seed=zzz is not used: the prompt files have no columns"]


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    found = found_in([write(tmp_path / "p.csv", "prompt,é ü\na,1\n")])
    assert found.lines()[1] == ("", "only travel into the samples' JSON: 'é ü'")
