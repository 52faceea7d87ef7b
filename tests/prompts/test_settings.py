"""What a job says of its prompt files, and what of it no file could be read with."""

import pytest

from batchgen.config.schema import JobConfig
from batchgen.prompts.settings import READS, SEPARATORS, Reading
from batchgen.types import Columns
from tests.prompts.reading import error_of


def test_the_job_says_how_its_files_are_read() -> None:
    job = JobConfig(encoding="cp1252", separator="tab", comment="#", columns=Columns(prompt="p"))
    assert Reading.of(job) == Reading(Columns(prompt="p"), "cp1252", "tab", "#", READS)
    assert (Reading.of(job).lenient, Reading.of(job, 1).lenient) == (True, False)


def test_a_column_lora_is_a_field_since_the_third_version_of_the_reader() -> None:
    assert [Reading.of(JobConfig(), version).columns.lora for version in (1, 2, 3)] == [None, None, "lora"]


@pytest.mark.parametrize("separator", [*SEPARATORS, *SEPARATORS.values(), "~"])
def test_a_separator_is_a_name_or_a_character(separator: str) -> None:
    reading = Reading(separator=separator)
    reading.check()
    assert reading.delimiter == SEPARATORS.get(separator, separator)


@pytest.mark.parametrize("separator", ["", "semikolon", ";;", '"', "\n", "\0"])
def test_other_separators_are_refused(separator: str) -> None:
    error_of(Reading(separator=separator).check, "job.separator", "semicolon", "one character")


@pytest.mark.parametrize("comment", ["", "  "])
def test_a_comment_begins_with_something(comment: str) -> None:
    error_of(Reading(comment=comment).check, "job.comment", "null")
