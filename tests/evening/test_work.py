"""How much a batch is, and when workers that share shards are done."""

import pytest

from batchgen.evening.work import Job, job_of, makespan_s
from batchgen.types import Batch
from tests.builders import make_prompt


def test_a_batch_runs_in_calls_of_padded_rows_and_guidance_doubles_them() -> None:
    job = Job(64, 64, 20, True, 40)
    assert list(job.calls(16)) == [(32, 20), (32, 20), (16, 20)]
    assert list(job.calls(16, split=True)) == [(16, 40), (16, 40), (8, 40)]
    assert list(job.calls(16, strict=True)) == [(32, 20), (32, 20), (32, 20)]
    assert list(Job(64, 64, 20, False, 3).calls(16)) == [(4, 20)]


def test_a_job_is_what_the_prompts_of_a_batch_share() -> None:
    batch = Batch(0, tuple(make_prompt(f"k{row}", width=128, steps=9, guidance=1.0) for row in range(3)))
    assert job_of(batch) == Job(128, 64, 9, False, 3)
    assert Job(128, 64, 9, True, 3).pixel_steps == 128 * 64 * 9 * 3 * 2


@pytest.mark.parametrize(
    ("shards_s", "workers", "done_s"),
    [([4, 4, 4], 1, 12), ([4, 4, 4], 2, 8), ([9, 1, 1, 1], 2, 9), ([2, 2], 8, 2)],
)
def test_each_worker_takes_the_next_shard_when_it_is_free(shards_s: list[float], workers: int, done_s: float) -> None:
    assert makespan_s(shards_s, workers) == done_s
