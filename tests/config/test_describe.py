"""docs/configuration.md: current, and complete."""

import subprocess
import sys
from dataclasses import asdict

from batchgen.config.check import CHOICES
from batchgen.config.describe import page
from batchgen.config.schema import Config, flatten
from tests.commands import ROOT


def test_the_page_is_what_the_schema_generates() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), "run `make docs`"


def test_every_key_has_a_row_with_a_meaning() -> None:
    rows = {line.split("`")[1]: line for line in page().splitlines() if line.startswith("| `")}
    for key in flatten(asdict(Config())):
        meaning = rows[key].rstrip(" |").rpartition("|")[2]
        assert len(meaning) > 10, key
    for key, choices in CHOICES.items():
        assert all(f"`{choice}`" in rows[key] for choice in choices if choice is not None)


def test_the_command_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batchgen.config.describe"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == page()
