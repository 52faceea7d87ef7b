"""What a bench will take goes by the work, roughly."""

from batchgen.bench.expected import image_flop, row_s
from batchgen.bench.rows import ROWS
from tests.bench.jobs import make_job

BY_NAME = {row.name: row for row in ROWS}


def test_more_steps_pixels_and_guidance_are_more_work(tmp_path):
    job = make_job(tmp_path, job__steps=20)
    base = image_flop(job)
    assert image_flop(make_job(tmp_path, job__steps=40)) > 1.8 * base
    assert image_flop(make_job(tmp_path, job__steps=20, job__width=128)) == 2 * base
    assert image_flop(make_job(tmp_path, job__steps=20, job__guidance=1.0)) < 0.6 * base


def test_a_slow_device_and_compiling_take_longer(tmp_path):
    job = make_job(tmp_path, job__steps=20)
    slow, fast = (row_s(job, BY_NAME["guide_batch"], speed) for speed in (1e9, 1e11))
    assert slow > fast > 0
    assert row_s(job, BY_NAME["compile"], 1e11) > fast + 30
