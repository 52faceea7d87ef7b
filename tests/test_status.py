"""`python -m batchgen.status`: how far a run is, what failed, and the exit code."""

import sys

from batchgen import status
from tests.builders import finish_run, full_attempt, plan_run
from tests.commands import front, run, write_prompts

STATUS = [sys.executable, "-m", "batchgen.status"]
PROMPTS = [f"fox {number}" for number in range(6)]


def test_status_ends_with_0_only_for_a_whole_run(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 50)
    front(tmp_path / "run", prompts, FAKE_NAN="00003")
    assert run(STATUS, tmp_path / "run").returncode == 3
    (tmp_path / "run" / "shards" / "000005.json").unlink()
    assert run(STATUS, tmp_path / "run").returncode == 75
    front(tmp_path / "good", prompts)
    assert run(STATUS, tmp_path / "good").returncode == 0


def test_status_says_how_many_workers_a_plan_can_occupy(tmp_path):
    plan_run(tmp_path, [f"prompt {place}" for place in range(9)])
    said = run(STATUS, tmp_path / "run").stdout
    assert "3 shards are left: up to 3 workers can be busy at once" in said


def test_failed_images_are_listed_with_their_reasons(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    bad = plan.shard(1)[0].keys[0]
    finish_run(plan, [bad])
    assert status.show(plan.run) == 3
    said = capsys.readouterr().out
    assert f"{plan.run.root}: done" in said and "6/6 images, 3/3 shards" in said
    assert "1 failed images, 0 rejected rows" in said and f"  {bad}: " in said


def test_a_broken_run_says_what_is_broken_and_what_to_do(tmp_path, capsys):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    full_attempt(plan, 0).commit()
    plan.run.tar(0).unlink()
    assert status.show(plan.run) == 1
    said = capsys.readouterr().out
    assert "broken: shard 000000's tar is missing" in said and "batchgen.repair" in said
