"""Rows are kept under what they depend on."""

from dataclasses import replace

from batchgen.bench import kept
from batchgen.bench.rows import ROWS
from tests.bench.jobs import GPU, make_job

BY_NAME = {row.name: row for row in ROWS}


def keys(job, fingerprint="2:f0"):
    return {row.name: kept.key_of(job, row, fingerprint) for row in ROWS}


def changed(one, other):
    """The names of the rows whose keys differ."""
    return {name for name, key in one.items() if other[name] != key}


def test_a_row_depends_on_device_model_versions_and_the_settings_it_heeds(tmp_path, monkeypatch):
    job = make_job(tmp_path)
    base = keys(job)
    assert len({*base.values()}) == len(ROWS)
    every = {*base}
    own = {row.name for row in ROWS if row.maker == "own"}
    assert changed(base, keys(job, "2:f1")) == every
    assert changed(base, keys(replace(job, place=replace(GPU, gpu=None)))) == every
    assert changed(base, keys(make_job(tmp_path, job__steps=3))) == every
    assert changed(base, keys(make_job(tmp_path, speed__traced=True))) == own
    assert changed(base, keys(make_job(tmp_path, images=2))) == own | {"guide_batch", "compile"}
    monkeypatch.setattr(kept, "versions", lambda: {"torch": "9"})
    assert changed(base, keys(job)) == every


def test_figures_come_back_and_what_is_broken_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path))
    assert kept.load("k") is None
    kept.save("k", {"seconds": 1.5})
    assert kept.load("k") == {"seconds": 1.5}
    (tmp_path / "bench" / "k.json").write_text("{")
    assert kept.load("k") is None
    monkeypatch.setenv("BATCHGEN_CACHE", "/proc/nowhere")
    kept.save("k", {})  # costs no more than another measurement
