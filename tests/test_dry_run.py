"""What a dry run says: the plan, the workers that can be busy, and what the run itself would refuse."""

import json
from dataclasses import replace

import pytest

from batchgen.dry_run import dry_run, summary
from batchgen.errors import EXIT_BROKEN, ResumeError
from batchgen.prepare import look_up
from tests.builders import finish_run, make_config, plan_run, write_rows
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


def test_a_dry_run_refuses_new_files_and_lost_tars_as_the_run_does(tmp_path):
    config = make_config(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1)
    finish_run(plan := plan_run(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1))
    assert summary(plan.run, config, look_up(config)).harm is None
    more = write_rows(tmp_path / "more.jsonl", ["d"])
    added = replace(config, job=replace(config.job, prompts=[config.job.prompts, str(more)]))
    with pytest.raises(ResumeError, match="extend=true"):
        summary(plan.run, added, look_up(added))
    assert summary(plan.run, replace(added, extend=True), look_up(added)).done_shards == 3
    plan.run.tar(1).unlink()
    assert dry_run(plan.run, config, []) == EXIT_BROKEN
    counts = summary(plan.run, config, look_up(config))
    assert (counts.done_shards, counts.open_shards) == (2, 0)
    assert counts.harm is not None and "shard 000001's tar is missing" in counts.harm


def test_json_is_one_object_on_stdout(tmp_path, prompts):
    done = front(tmp_path / "run", prompts, "dry_run=json", "launch.workers=20", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    says = json.loads(done.stdout)
    assert (says["prompts"], says["rejects"], says["batches"], says["shards"]) == (50, 0, 13, 7)
    assert says["policies"][0]["width"] == 64 and says["model"] == "tiny"
    assert len([one for one in says["warnings"] if "13 of 20 workers have nothing to do" in one]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt"]


@pytest.mark.parametrize("value", ["tru", "", "2"])
def test_a_kind_of_dry_run_that_there_is_not_is_refused(tmp_path, prompts, value):
    done = front(tmp_path / "run", prompts, f"dry_run={value}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and f"dry_run={value} is not valid" in done.stderr
