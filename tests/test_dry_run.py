"""What a dry run says: the plan, and the workers that can be busy."""

import pytest

from tests.commands import front, write_prompts


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 50)


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, "dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("prompts    50", "rejects    0", "batches    13 of up to 4", "packing    100.0%", "shards     7"):
        assert line in done.stdout
    assert "policy     64x64: micro-batch" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt"]


WORKERS = ("launch.workers=8", "job.batch_size=32", "output.batches_per_shard=null")


@pytest.mark.parametrize(
    ("count", "more", "lines"),
    [
        (
            72,
            (),
            [
                "packing    75.0%",
                "shards     16 of up to 1 batches",
                "workers    8 of 8 can be busy at once: 16 shards are left",
            ],
        ),
        (20, (), ["workers    5 of 8 can be busy at once: 5 shards are left"]),
        (
            72,
            ("launch.workers=1",),
            ["batches    3 of up to 32", "workers    1 of 1 can be busy at once: 3 shards are left"],
        ),
        (
            72,
            ("determinism=strict",),
            [
                "packing    75.0%",
                "workers    3 of 8 can be busy at once: 3 shards are left",
                "strict     rests are padded: up to 33.3% more rows are denoised; no batch is cut",
                "the last ones keep 3 of 8 workers busy",
            ],
        ),
    ],
)
def test_a_dry_run_says_how_many_workers_can_be_busy(tmp_path, count, more, lines):
    done = front(tmp_path / "run", write_prompts(tmp_path / "p.txt", count), "dry_run=true", *WORKERS, *more)
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line not in done.stdout] == []
