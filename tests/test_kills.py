"""SIGKILL at random moments of a run, again and again: nothing lost, nothing twice, the same bytes."""

import random

import pytest

from tests.commands import FAKE, beside_progress, front, kill_after, shard_files, verify, write_prompts

KILLS = 50


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_change_no_byte(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 800)
    arguments = ["job=mars_batch", f"job.prompts={prompts}", "job.width=64", "job.height=64", "job.batch_size=4",
                 "output.batches_per_shard=2"]  # fmt: skip
    chosen = random.Random(11)
    kills = 0
    while kills < KILLS:
        code, errors = kill_after(
            chosen.uniform(0.3, 1.3), FAKE, f"run_dir={tmp_path / 'run'}", *arguments, FAKE_STEP_S="0.2"
        )
        assert beside_progress(errors) == []
        assert code == -9, "the run ended before it was killed often enough"
        kills += 1
    assert front(tmp_path / "run", prompts).returncode == 0
    done = verify(tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    twice = int(done.stdout.split(" batches were made twice")[0].splitlines()[-1])
    assert twice <= KILLS
    front(tmp_path / "whole", prompts)
    assert shard_files(tmp_path / "run") == shard_files(tmp_path / "whole")
    assert not list((tmp_path / "run" / "work").iterdir())
