"""The rows of parquet files."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.bounds import SEED_LIMIT
from batchgen.prompts import READS
from tests.prompts.reading import LONG, check_neighbours, error_of, parquet, read, rows, write

BAD_PARQUET: list[tuple[str, object, str]] = [
    ("prompt", None, "no prompt"),
    ("prompt", " ", "empty prompt"),
    ("prompt", "a\0", "'prompt' has a NUL"),
    ("prompt", LONG, "prompt has 20,001"),
    ("note", "a\0", "'note' has a NUL"),
    ("key", "a b", "key must be"),
    ("seed", -2, "seed must be between"),
    ("guidance", float("inf"), "guidance must be between"),
    ("steps", 0, "steps must be"),
]
BAD_TO_THE_FIRST: list[tuple[str, object, str]] = [
    ("seed", -1, "seed must be between"),
    ("seed", SEED_LIMIT, "seed must be between"),
    ("seed", "1", "seed must be a whole number, got '1'"),
    ("seed", 1.0, "seed must be a whole number, got 1.0"),
    ("guidance", float("nan"), "guidance must be between"),
]


@pytest.mark.parametrize(
    ("name", "value", "reason", "version"),
    [(*bad, READS) for bad in BAD_PARQUET] + [(*bad, 1) for bad in BAD_PARQUET + BAD_TO_THE_FIRST],
)
def test_bad_parquet_rows(tmp_path: Path, name: str, value: object, reason: str, version: int) -> None:
    table: dict[str, list[Any]] = {"prompt": ["one fox", "x", "two dogs"], name: [None, None, None]}
    table["prompt"] = ["one fox", "x", "two dogs"]
    table[name][1] = value
    check_neighbours(write(tmp_path / "p.parquet", parquet(table)), 2, 1, reason, version)


def test_parquet_strings_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    bad = pa.array([b"one fox", b"a\xff", b"two dogs"], pa.binary()).view(pa.string())
    check_neighbours(write(tmp_path / "p.parquet", parquet({"prompt": bad})), 2, 1, "cannot be read")


def test_parquet_extra_is_json(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = {
        "prompt": ["a"],
        "when": pa.array([123_456_789], pa.timestamp("ns")),
        "day": [datetime.date(2024, 2, 3)],
        "cost": [decimal.Decimal("1.50")],
        "score": [float("nan")],
        "peak": [float("-inf")],
        "tags": [[{"x": 1.5, "at": datetime.datetime(2024, 2, 3)}]],
        "raw": [b"\xff"],
        "image": [{"bytes": b"\xff", "path": "x"}],
        "blobs": [[b"\xff"]],
        "flag": [True],
        "kind": pa.array(["c"]).dictionary_encode(),
        "none": [None],
    }
    (row,) = rows(read(write(tmp_path / "p.parquet", parquet(table))))
    assert row.extra == {
        "when": "1970-01-01 00:00:00.123456789",
        "day": "2024-02-03",
        "cost": "1.50",
        "score": None,
        "peak": "-inf",
        "tags": [{"x": 1.5, "at": "2024-02-03 00:00:00"}],
        "flag": True,
        "kind": "c",
        "none": None,
    }
    json.dumps(row.extra, allow_nan=False)


def test_parquet_files_without_a_prompt_column(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", parquet({"a": [1], "b": [2]}))
    error_of(lambda: read(path), "only 'a', 'b'; set job.columns.prompt")
    path = write(tmp_path / "p.parquet", parquet({"prompt": [b"a"]}))
    error_of(lambda: read(path), "'prompt' is binary")


@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz"])
def test_damaged_parquet_files(tmp_path: Path, suffix: str) -> None:
    data = parquet({"prompt": [f"prompt {number}" for number in range(100)]})
    broken = bytearray(data)
    broken[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    for content in (b"x", b"PAR1", data[: len(data) // 2], data[:-1], data[8:], bytes(broken)):
        path = write(tmp_path / f"p{suffix}", content)
        error_of(lambda path=path: read(path), path)  # type: ignore[misc]
