"""The lines of the table, and its JSON."""

from batchgen.bench import table
from batchgen.bench.rows import ROWS
from batchgen.units import GIB
from tests.bench.jobs import GPU, make_job

BY_NAME = {row.name: row for row in ROWS}
ANSWER = {"seconds": 4.0, "images": 2, "start_s": 7.25, "peak_bytes": 3 * GIB // 2}


def test_figures_are_rates_and_what_they_gain_over_the_first(tmp_path):
    job = make_job(tmp_path)
    first = table.figures_of(ANSWER, None)
    assert (first["images_per_s"], first["speed_up"]) == (0.5, 1.0)
    other = table.figures_of(ANSWER | {"seconds": 1.0}, first)
    assert other["speed_up"] == 4.0
    line = table.line(BY_NAME["batchgen_traced"], job, other)
    assert line.split() == ["batchgen,", "speed.traced=true", "2.000", "1.00", "x4.00", "1.50", "7.2"]
    assert len(line) == len(table.head("batches", job))


def test_a_row_without_figures_says_why(tmp_path):
    job = make_job(tmp_path, GPU)
    figures = table.figures_of({"failed": "it ran out of memory"}, None)
    assert table.line(BY_NAME["fp16"], job, figures).split(maxsplit=1) == ["fp16", "failed: it ran out of memory"]
    assert table.line(BY_NAME["traced"], job, {"left_out": "no UNet"}).endswith("left out: no UNet")


def test_the_json_has_what_was_measured_where(tmp_path):
    found = table.as_json(make_job(tmp_path), "2:f0", [(BY_NAME["compile"], table.figures_of(ANSWER, None))])
    assert found["device"] == "a CPU, 2 cores" and found["fingerprint"] == "2:f0" and found["settings"]["steps"] == 2
    assert found["rows"][0]["name"] == "compile" and found["rows"][0]["peak_bytes"] == 3 * GIB // 2
