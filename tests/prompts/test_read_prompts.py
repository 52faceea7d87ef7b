"""Reading several files, and settings that are not valid."""

import subprocess
import sys
from pathlib import Path

import pytest

from batchgen.prompts import READS, Reading, read_prompts
from batchgen.types import Columns, PromptFile, Reject
from tests.prompts.reading import error_of, rejects, rows, write


def test_files_are_numbered_from_first_file(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt", "x\n\ny"), write(tmp_path / "b.txt", "z")]
    for version, bad in ((READS, []), (1, [Reject(str(files[0]), 2, "empty prompt")])):
        items = list(read_prompts([PromptFile(path) for path in files], Reading(version=version), first_file=5))
        # The number of a row is that of its record, blank or not, so that its key is the same for every version.
        assert [(row.file, row.row, row.line) for row in rows(items)] == [(5, 0, 1), (5, 2, 3), (6, 0, 1)]
        assert rejects(items) == bad


def test_two_fields_cannot_name_one_column() -> None:
    error_of(lambda: read_prompts([], Reading(Columns(prompt="seed"))), "'seed'", "job.columns")


@pytest.mark.parametrize("encoding", ["no-such-code", "hex", "rot13", "a\0b", "undefined", "\x1b[2J"])
def test_unknown_encodings(encoding: str) -> None:
    error_of(lambda: read_prompts([], Reading(encoding=encoding)), "job.encoding")


def test_importing_is_cheap() -> None:
    code = "import sys, batchgen.prompts; print({'numpy', 'pyarrow', 'torch'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
