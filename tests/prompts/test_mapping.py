"""Which column holds which field: the names here and in other programs, and the order among them."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from batchgen.prompts.mapping import NAMES, ONLY_BY_NAME, known_name, layout_of, named_columns
from batchgen.prompts.settings import READS, Reading
from batchgen.types import Columns
from tests.commands import run


def found(*names: str, **columns: str | None) -> dict[str, str | None]:
    """Which column each field has."""
    return found_by(READS, *names, **columns)


def found_by(version: int, *names: str, **columns: str | None) -> dict[str, str | None]:
    """Which column each field has to that version of the reader."""
    layout = layout_of(names, Reading(Columns(**columns), version=version))
    return {"prompt": layout.prompt} | dict(layout.fields)


def test_every_field_has_names_and_its_own_is_the_first() -> None:
    assert list(NAMES) == [column.name for column in fields(Columns)]
    assert [names[0] for names in NAMES.values()] == [known_name(name) for name in NAMES]
    every = [name for names in NAMES.values() for name in names]
    assert len(set(every)) == len(every), "no name may stand for two fields"


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("Negative Prompt", "negative_prompt"),
        ("negative prompt", "negative_prompt"),
        ("negativePrompt", "negative_prompt"),
        ("NEGATIVE", "negative_prompt"),
        ("neg_prompt", "negative_prompt"),
        ("cfg", "guidance"),
        ("CFG Scale", "guidance"),
        ("cfg_scale", "guidance"),
        ("guidance_scale", "guidance"),
        ("guidanceScale", "guidance"),
        ("num_inference_steps", "steps"),
        ("sampling_steps", "steps"),
        ("Sampling-Steps", "steps"),
        ("num_images_per_prompt", "images_per_prompt"),
        (" Seed ", "seed"),
        ("\ufeffseed", "seed"),
        ("WIDTH", "width"),
        ("Key", "key"),
    ],
)
def test_names_of_other_programs(column: str, field: str) -> None:
    assert found("prompt", column) == {"prompt": "prompt", field: column}
    assert found_by(1, "prompt", column) == {"prompt": "prompt"}, "an earlier plan keeps to what it was"
    assert found("prompt", column, **{field: None}) == {"prompt": "prompt"}, "null turns the field off"


@pytest.mark.parametrize("name", ["n", "w", "h", "step", "N", "id", "size", "sampler", "model"])
def test_names_that_mean_other_things_in_other_files(name: str) -> None:
    assert found("prompt", name) == {"prompt": "prompt"}


@pytest.mark.parametrize(("name", "field"), ONLY_BY_NAME.items())
def test_such_a_name_holds_a_field_where_the_job_says_so(name: str, field: str) -> None:
    assert found("prompt", name, **{field: name}) == {"prompt": "prompt", field: name}


def test_a_name_of_ones_own_wins_over_others_and_they_have_an_order() -> None:
    assert found("prompt", "cfg", "guidance")["guidance"] == "guidance"
    assert found("prompt", "cfg", "Guidance")["guidance"] == "Guidance"
    assert found("prompt", "cfg", "cfg_scale")["guidance"] == "cfg_scale"
    assert found("prompt", "SEED", "Seed")["seed"] == "SEED"


def test_what_the_job_names_is_not_taken_for_another_field() -> None:
    assert found("prompt", "cfg", key="cfg") == {"prompt": "prompt", "key": "cfg"}
    assert found("text", "negative", prompt="negative") == {"prompt": "negative"}
    assert found("prompt", "text", negative_prompt="prompt") == {"prompt": "text", "negative_prompt": "prompt"}


@pytest.mark.parametrize(
    ("names", "prompt"),
    [
        (("Prompts", "Category"), "Prompts"),
        ((" prompt", "seed"), " prompt"),
        (("positive prompt", "negative prompt"), "positive prompt"),
        (("prompts", "text"), "text"),  # what the first version found comes first
        ((" prompt", "text"), "text"),
        (("TEXT", "url"), "TEXT"),
        (("id", "url"), None),
    ],
)
def test_the_column_of_the_prompt(names: tuple[str, ...], prompt: str | None) -> None:
    assert found(*names)["prompt"] == prompt


def test_a_column_that_the_job_names_and_is_not_there_is_missing() -> None:
    reading = Reading(Columns(seed="zzz", steps="n", width=None, guidance="guidance"))
    assert named_columns(reading) == [("seed", "zzz"), ("steps", "n")]
    assert layout_of(("prompt", "n"), reading).missing(reading) == [("seed", "zzz")]


DOCUMENT = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text()


def test_the_document_has_all_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", DOCUMENT, re.M)
    told = {field: tuple(map(known_name, re.findall(r"\w+", names))) for field, names in rows}
    assert told == NAMES


def test_the_document_shows_what_a_dry_run_prints(tmp_path: Path) -> None:
    (table,) = re.findall(r"```csv\n(.*?)```", DOCUMENT, re.S)
    (command,) = re.findall(r"^python (-m batchgen .* dry_run=true)$", DOCUMENT, re.M)
    (shown,) = re.findall(r"```text\n(.*?)```", DOCUMENT, re.S)
    (tmp_path / "animals.csv").write_text(table)
    assert shown in run([sys.executable, *command.split()], cwd=tmp_path).stdout
