"""The lines of a dry run about time, cost, disk and download, and their values in JSON."""

import json

import pytest

from batchgen.config.schema import OutputConfig
from batchgen.errors import ConfigError
from batchgen.evening.disk import Room
from batchgen.evening.download import Download
from batchgen.evening.lines import as_json, as_text
from batchgen.evening.takes import NOTHING, Takes
from batchgen.evening.told import copies_line, cost_lines, disk_line, download_line, time_line

GIB = 1 << 30
TAKES = Takes(3600.0, 20.0, 3579.0, 2.5)


def test_time_and_cost() -> None:
    lines = [time_line(TAKES, 9000), *cost_lines(TAKES, 4, 2.5)]
    said = as_text(lines)
    assert "time       about 1h00m: 20s until the first image is begun, then 9000 images at 2.50 images/s" in said
    assert "gpu-hours  4.00 on 4 GPUs" in said and "cost       10.00, at 2.5 for a GPU-hour" in said
    values = json.loads(as_json(lines))
    assert (values["time_s"], values["gpu_hours"], values["cost"], values["images_per_s"]) == (3600.0, 4.0, 10.0, 2.5)


def test_what_is_not_known_says_what_to_do_and_is_null() -> None:
    lines = [time_line(None, 9000, "the model is not here yet"), *cost_lines(None, 4, 2.5)]
    said = as_text(lines)
    assert "not known" in said and "dry_run=probe" in said and "the model is not here yet" in said
    values = json.loads(as_json(lines))
    assert [values[name] for name in ("time_s", "gpu_hours", "cost", "images_per_s")] == [None] * 4
    assert "cost       none: the time is not known" in said
    assert "cost       none: no GPU is used" in as_text(cost_lines(TAKES, 0, 2.5))
    assert "cost       none: nothing is left to make" in as_text(cost_lines(NOTHING, 0, 2.5))
    assert as_text(cost_lines(TAKES, 0, None)) == as_text(cost_lines(None, 1, None)) == ""
    assert "gpu_hours" in json.loads(as_json(cost_lines(TAKES, 0, 2.5))), "on the CPU"


def test_where_copies_go() -> None:
    away = copies_line(OutputConfig(copy_to="hf://datasets/me/night", keep_local=False))
    assert "copied to hf://datasets/me/night/data/shards/, and its tar then leaves this disk" in away.text
    assert away.values == {"copy_to": "hf://datasets/me/night", "keep_local": False}
    assert "leaves" not in copies_line(OutputConfig(copy_to="memory://a")).text
    assert copies_line(OutputConfig()).text == ""
    with pytest.raises(ConfigError, match="is not an address"):
        copies_line(OutputConfig(copy_to="nope://a"))


def test_disk_and_download() -> None:
    measured, bound = (disk_line(Room(5 * GIB, 4 * GIB, how, 100 * GIB), "outputs/x") for how in (True, False))
    assert "about 5.0 GiB to write (measured), 100.0 GiB free at outputs/x" in measured.text
    assert "at most 5.0 GiB" in bound.text and bound.values["disk_measured"] is False
    assert download_line(None).text == "" and download_line(None).values == {"download_bytes": 0}
    assert "2.0 GiB of the model first" in download_line(Download(2 * GIB)).text
    unknown = download_line(Download(None, "HF_HUB_OFFLINE is set"))
    assert "not known: HF_HUB_OFFLINE is set" in unknown.text
    assert unknown.values == {"download_bytes": None}
