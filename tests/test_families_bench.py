"""The benchmark of families goes on where time ended, and measures each cell once."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.bench.families import CELLS, Families
from tests.bench.family_cells import Bench, Cell, TimeIsUpError
from tests.bench.ladder import Rows

OF_Z_IMAGE = [cell for cell in CELLS if cell.model == "z_image"]


class Counted(Bench):
    """It measures nothing."""

    def measure(self, cell: Cell) -> dict[str, Any]:
        return {"code": 0, "rate": 1.0}


def families(folder: Path, seconds: float, with_anchors: bool = True) -> Families:
    bench = Counted(folder, None, time.monotonic() + seconds)
    (folder / "z_image").mkdir(exist_ok=True)
    (folder / "z_image" / "model_index.json").touch()
    return Families(Rows(folder / "rows.jsonl", "a card"), bench, ["z_image"], with_anchors)


def test_what_would_not_end_in_time_is_not_begun_and_the_next_call_goes_on(tmp_path: Path) -> None:
    first = families(tmp_path, OF_Z_IMAGE[0].expected_s - 1)
    with pytest.raises(TimeIsUpError):
        first.measure("z_image")
    assert not first.rows()
    families(tmp_path, math.inf, with_anchors=False).measure("z_image")
    assert [cell.anchor for cell in families(tmp_path, 0).rows()] == [None, None]
    last = families(tmp_path, math.inf)
    last.measure("z_image")
    assert list(last.rows()) == OF_Z_IMAGE
    families(tmp_path, 0).measure("z_image")  # all is there
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(OF_Z_IMAGE)
    last.remove("z_image")
    assert not (tmp_path / "z_image").exists()
