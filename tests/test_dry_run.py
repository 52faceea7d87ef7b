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
                "shards     16 of up to 1 batch\n",
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
    assert says["policies"][0]["width"] == 64 and says["model"] == "tiny_2"
    assert len([one for one in says["warnings"] if "13 of 20 workers have nothing to do" in one]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt"]


@pytest.mark.parametrize("value", ["tru", "", "2"])
def test_a_kind_of_dry_run_that_there_is_not_is_refused(tmp_path, prompts, value):
    done = front(tmp_path / "run", prompts, f"dry_run={value}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and f"dry_run={value} is not valid" in done.stderr


def test_a_dry_run_shows_what_the_columns_became_and_an_example(tmp_path):
    table = tmp_path / "p.csv"
    table.write_text("\ufeffPrompt;Negative Prompt;Seed;CFG;sampler\na fox, red;blurry;5;3,5;ddim\n\nan owl;;6;;\n")
    before = front(tmp_path / "run", table, "dry_run=true").stdout
    fields = "prompt is 'Prompt', negative_prompt is 'Negative Prompt', seed is 'Seed', guidance is 'CFG'"
    for line in (
        "prompts    2\nrejects    0\n",
        f"columns    {table} (separated by ';'): {fields}\n",
        "           only travel into the samples' JSON: 'sampler'\n",
        "example    000000000000-00: 'a fox, red'\n",
        "           seed 5, 64x64, 20 steps, guidance 3.5, negative prompt 'blurry'\n",
    ):
        assert line in before
    assert front(tmp_path / "run", table).returncode == 0
    after = front(tmp_path / "run", table, "dry_run=true").stdout
    assert [line for line in before.splitlines() if line[:7] in ("columns", "example", "       ")] == [
        line for line in after.splitlines() if line[:7] in ("columns", "example", "       ")
    ], "of a plan that exists the same is told"


def test_a_dry_run_tells_of_shared_seeds(tmp_path):
    rows = write_rows(tmp_path / "p.jsonl", [{"prompt": "a", "seed": 5}, {"prompt": "b", "seed": 6}])
    done = front(tmp_path / "run", rows, "job.images_per_prompt=3", "dry_run=true")
    assert "note       images_per_prompt=3 counts up from a row's own seed" in done.stdout
    assert f"{rows}:1 and {rows}:2 both use 6" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "said", "cure"),
    [
        ("cp1252.csv", b"prompt\ncaf\xe9\n", "not valid utf-8: byte 0xe9", "job.encoding=cp1252"),
        ("header.csv", b"prompt,caf\xe9\na,b\n", "the header cannot be read", "job.encoding=cp1252"),
        ("wide.txt", "a fox\n".encode("utf-16-le"), "utf-16-le text without", "job.encoding=utf-16-le"),
        ("coyo.jsonl", b'{"text": "a", "width": 500, "height": 333}\n', "width must be a multiple of 8, got 500",
         "job.columns.width=null job.columns.height=null"),
        ("mine.csv", b"title\na fox\n", "no column for the prompt", "job.columns.prompt=title"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_names_the_key_and_then_runs(tmp_path, name, content, said, cure):
    (tmp_path / name).write_bytes(content)
    refused = front(tmp_path / "run", tmp_path / name, "job.on_bad_row=fail")
    assert refused.returncode == 2 and said in refused.stderr
    assert cure.replace("=title", "=NAME") in refused.stderr
    none_good = front(tmp_path / "run", tmp_path / name)
    assert none_good.returncode == 2 and cure.replace("=title", "=NAME") in none_good.stderr
    done = front(tmp_path / "run", tmp_path / name, "job.on_bad_row=fail", *cure.split())
    assert done.returncode == 0, done.stderr
