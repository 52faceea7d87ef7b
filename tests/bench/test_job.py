"""A job is settled: how many images, which dtype, and what could not be made is refused."""

import pytest

from batchgen.bench.rows import ROWS
from batchgen.errors import ConfigError, ModelError
from tests.bench.jobs import GPU, make_job

BY_NAME = {row.name: row for row in ROWS}


def test_batches_are_the_jobs_and_fewer_images_make_smaller_ones(tmp_path):
    assert (make_job(tmp_path, images=None).task.rows, make_job(tmp_path, images=None).task.batches) == (2, 2)
    assert (make_job(tmp_path, images=5).task.rows, make_job(tmp_path, images=5).task.batches) == (2, 3)
    assert (make_job(tmp_path, images=1).task.rows, make_job(tmp_path, images=1).task.batches) == (1, 1)


def test_one_image_is_in_16_bits_on_a_gpu_and_batches_are_in_the_jobs_dtype(tmp_path):
    job = make_job(tmp_path, GPU, model__dtype="fp32")
    assert (job.dtype(BY_NAME["fp16"]), job.dtype(BY_NAME["compile"])) == ("fp16", "fp32")
    assert make_job(tmp_path, GPU).dtype(BY_NAME["compile"]) == "fp16"
    assert make_job(tmp_path).dtype(BY_NAME["compile"]) == "fp32"


def test_what_a_run_could_not_make_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="job.width=100: this model needs a multiple of 8"):
        make_job(tmp_path, job__width=100)
    with pytest.raises(ModelError, match="nowhere"):
        make_job(tmp_path, model="./nowhere")


def test_a_row_of_batchgen_is_a_command_and_another_one_a_script(tmp_path):
    job = make_job(tmp_path)
    own = job.request(BY_NAME["batchgen_traced"], tmp_path)
    assert own["speed"] == {"traced": True} and {"job.steps=2", "speed.traced=true"} <= {*own["words"]}
    script = job.request(BY_NAME["traced"], tmp_path)
    assert script["name"] == "traced" and script["task"]["steps"] == 2 and script["half"] == "fp32"
