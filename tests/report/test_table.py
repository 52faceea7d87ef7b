"""samples.parquet: a row for each planned image, its place in the tars, and columns that have one type each."""

import json
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from batchgen.files import sha256_bytes
from batchgen.report import table
from batchgen.report.table import COLUMNS, MOST_OWN, TOGETHER, Own, write_table
from tests.builders import finish_run, full_attempt, plan_run


def rows_of(plan):
    write_table(plan)
    return parquet.read_table(plan.run.samples_table).to_pylist()


def test_each_row_says_what_was_planned_and_where_the_image_is(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_ROWS_AT_ONCE", 4)
    plan = plan_run(tmp_path, [{"prompt": f"a fox {place}", "seed": 4294967295 - place} for place in range(6)])
    finish_run(plan)
    rows, prompts = rows_of(plan), list(plan.prompts())
    assert [row["seed"] for row in rows] == [4294967295 - place for place in range(6)]
    for row, prompt in zip(rows, prompts, strict=True):
        for name in ("key", "prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance"):
            assert row[name] == getattr(prompt, name)
        data = (plan.run.root / row["shard"]).read_bytes()[row["offset"] :][: row["size"]]
        assert data.startswith(b"\x89PNG") and sha256_bytes(data) == row["sha256"]
        assert (row["status"], row["reason"]) == ("ok", None)
    schema = parquet.read_schema(plan.run.samples_table)
    assert {field.name: field.type for field in schema} == {
        name: pa.type_for_alias(kind) for name, kind in COLUMNS.items()
    }


def test_what_failed_or_is_open_has_no_place(tmp_path):
    plan = plan_run(tmp_path, [f"a fox {place}" for place in range(6)])
    full_attempt(plan, 0, failed={plan.shard(0)[0].keys[1]}).commit()
    rows = rows_of(plan)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok", "ok", "open", "open"]
    assert [row["shard"] for row in rows] == ["shards/000000.tar"] * 4 + [None] * 2
    assert "not finite" in rows[1]["reason"]
    assert [row["offset"] is None for row in rows] == [row["sha256"] is None for row in rows]
    assert [row["offset"] is None for row in rows] == [False, True, False, False, True, True]


def test_a_run_that_has_not_begun_and_one_without_tars(tmp_path):
    plan = plan_run(tmp_path, ["a fox"])
    assert [row["status"] for row in rows_of(plan)] == ["open"]
    finish_run(plan)
    plan.run.tar(0).unlink()
    [row] = rows_of(plan)
    assert (row["status"], row["offset"]) == ("ok", None)


@pytest.mark.parametrize(
    ("values", "kind", "held"),
    [
        ([1, None, 2], pa.int64(), [1, None, 2]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([1, 2**53 + 1], pa.int64(), [1, 2**53 + 1]),
        ([0.5, 2**53 + 1], pa.string(), ["0.5", str(2**53 + 1)]),
        ([2**63 - 1, -(2**63)], pa.int64(), [2**63 - 1, -(2**63)]),
        ([1, 2**63], pa.string(), ["1", str(2**63)]),
        ([True, False], pa.bool_(), [True, False]),
        ([True, 1], pa.string(), ["true", "1"]),
        (["one", "zwei \u00fc"], pa.string(), ["one", "zwei \u00fc"]),
        (["one", 1], pa.string(), ['"one"', "1"]),
        ([[1, "a"], {"deep": [{}]}], pa.string(), ['[1,"a"]', '{"deep":[{}]}']),
        ([None, None], pa.string(), [None, None]),
    ],
)
def test_a_column_has_one_type_that_all_its_values_have(tmp_path, values, kind, held):
    plan = plan_run(tmp_path, [{"prompt": f"a fox {place}", "mine": value} for place, value in enumerate(values)])
    assert [row["mine"] for row in rows_of(plan)] == held
    assert parquet.read_schema(plan.run.samples_table).field("mine").type == kind


def test_columns_that_only_some_rows_have_and_names_that_are_taken(tmp_path):
    rows: list[Any] = [{"prompt": "a fox"}, {"prompt": "a hen", "Shard": 7, "shard": "mine", "row_shard": 1, "x": "y"}]
    found = rows_of(plan_run(tmp_path, rows))
    own = [{name: row[name] for name in list(row)[len(COLUMNS) :]} for row in found]
    assert own == [
        {"row_Shard": None, "row_row_shard": None, "row_row_row_shard": None, "x": None},
        {"row_Shard": 7, "row_row_shard": "mine", "row_row_row_shard": 1, "x": "y"},
    ]


def test_too_many_columns_are_kept_together(tmp_path):
    many = {f"column {place}": place for place in range(MOST_OWN + 1)}
    found = rows_of(plan_run(tmp_path, [{"prompt": "a fox"} | many, "a hen"]))
    assert [json.loads(row[TOGETHER]) for row in found] == [many, {}]
    assert list(found[0]) == [*COLUMNS, TOGETHER]
    some = Own()
    some.add(dict(list(many.items())[1:]))
    assert not some.are_together


def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    plan = plan_run(tmp_path, [{"prompt": "a fox", "id": 1}])
    finish_run(plan)
    before = {path.name for path in plan.run.root.iterdir()}
    first = rows_of(plan) and plan.run.samples_table.read_bytes()
    assert rows_of(plan) and plan.run.samples_table.read_bytes() == first
    assert {path.name for path in plan.run.root.iterdir()} - before == {"samples.parquet"}
