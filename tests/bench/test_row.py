"""The process that measures one row: it asks for a device, and a script that fails says so."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.bench import guide, row
from batchgen.bench.rows import ROWS
from batchgen.errors import ModelError
from tests.bench.jobs import make_job

BY_NAME = {one.name: one for one in ROWS}


def test_the_device_says_how_fast_it_is(monkeypatch):
    assert row.measure({"maker": "device", "is_gpu": False})["flop_per_s"] > 1e8
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="cannot use the GPU"):
        row.measure({"maker": "device", "is_gpu": True})


def test_a_script_is_measured_on_the_jobs_model_and_settings(tmp_path, small):
    job = make_job(tmp_path, model=small, images=2)
    found = row.measure(job.request(BY_NAME["guide_batch"], tmp_path))
    assert found["images"] == 2 and found["seconds"] > 0 and found["start_s"] > 0 and found["peak_bytes"] > 50 << 20


@pytest.mark.parametrize(
    ("error", "said"),
    [(torch.OutOfMemoryError("CUDA out of memory"), "it ran out of memory"), (ValueError("no"), "ValueError: no")],
)
def test_a_script_that_fails_says_why(tmp_path, small, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(guide, "batch", fail)
    request = make_job(tmp_path, model=small).request(BY_NAME["guide_batch"], tmp_path)
    assert row.measure(request) == {"failed": said}
