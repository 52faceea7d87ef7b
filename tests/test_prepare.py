"""From a configuration to a plan: extensions at once, plans that give way, what a run of an older batchgen lacks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen import plan as plan_module
from batchgen import prepare as prepare_module
from batchgen import replan
from batchgen.config import Config
from batchgen.errors import EXIT_BROKEN, ModelError, ResumeError
from batchgen.paths import models_dir
from batchgen.plan import Plan, load_plan
from batchgen.prepare import prepare, summary
from batchgen.run import run
from tests.builders import finish_run, full_attempt, gone_process, make_config, plan_run, write_rows
from tests.commands import REAL, front, verify, write_prompts

PROMPTS = [f"fox {number}" for number in range(4)]


def extended(tmp_path: Path, *files: str, **overrides: Any) -> Config:
    """The job with more prompt files, each of two prompts."""
    more = [str(write_rows(tmp_path / name, [f"{name} one", f"{name} two"])) for name in files]
    config = make_config(tmp_path, PROMPTS, extend=True, **overrides)
    config.job.prompts = [config.job.prompts, *more]
    return config


def prompts_of(plan: Plan) -> list[str]:
    return [prompt.prompt for prompt in plan.prompts()]


def first_is_another(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Let `act` happen once, when the next extension is read and planned and its name not taken yet."""
    real = plan_module.save_plan
    done: list[bool] = []

    def save_plan(*arguments: Any) -> bool:
        if not done:
            done.append(True)
            act()
        return real(*arguments)

    monkeypatch.setattr(prepare_module, "save_plan", save_plan)


def test_of_two_extensions_at_once_both_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    mine = extended(tmp_path, "za.jsonl", "zb.jsonl")
    first_is_another(monkeypatch, lambda: prepare(plan.run, extended(tmp_path, "za.jsonl")))
    longer = prepare(plan.run, mine)
    assert prompts_of(longer) == [*PROMPTS, *(f"{name}.jsonl {n}" for name in ("za", "zb") for n in ("one", "two"))]
    assert len(longer.segments) == 3
    keys = [prompt.key for prompt in longer.prompts()]
    at_once = plan_run(tmp_path / "..", PROMPTS, run_dir=str(tmp_path / "at once"), job__prompts=mine.job.prompts)
    assert keys == [prompt.key for prompt in at_once.prompts()]


def test_of_two_extensions_by_other_files_the_second_says_what_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    mine = extended(tmp_path, "zb.jsonl")
    first_is_another(monkeypatch, lambda: prepare(plan.run, extended(tmp_path, "za.jsonl")))
    with pytest.raises(ResumeError, match=r"za\.jsonl: gone"):
        prepare(plan.run, mine)


def test_a_retry_that_an_extension_overtakes_is_planned_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    finish_run(plan, failed=["000000000002-00"])
    mine = extended(tmp_path, "za.jsonl", retry_failed=True)
    prepare(plan.run, extended(tmp_path, "za.jsonl"))
    first_is_another(monkeypatch, lambda: prepare(plan.run, extended(tmp_path, "za.jsonl", "zb.jsonl")))
    longer = prepare(plan.run, mine)
    assert [segment.kind for segment in longer.segments] == ["run", "extend", "extend", "retry"]


def test_a_plan_of_which_nothing_was_begun_gives_way_and_is_kept(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    (plan.run.policies / "fake-64x64.json").write_text("{}")
    corrected = make_config(tmp_path, PROMPTS, job__steps=9)
    assert summary(plan.run, corrected)["prompts"] == 4
    assert load_plan(plan.run).run_id == plan.run_id, "a dry run changes nothing"
    newer = prepare(plan.run, corrected)
    assert newer.run_id != plan.run_id and newer.planned.job.steps == 9
    kept = sorted(path.name for path in (plan.run.replaced / plan.run_id).iterdir())
    assert kept == ["plan", "policies"] and not list(plan.run.policies.glob("*"))


def test_extensions_of_a_plan_give_way_with_it(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    longer = prepare(plan.run, extended(tmp_path, "za.jsonl"))
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert (len(longer.segments), len(newer.segments)) == (2, 1)


@pytest.mark.parametrize("trace", ["shards/000000.json", "work/000000.x.tar", "leases/000000", "slurm/jobs.json"])
def test_a_plan_that_was_begun_does_not_give_way(tmp_path: Path, trace: str) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    path = plan.run.root / trace
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ResumeError, match="job.steps: 2 -> 9"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert load_plan(plan.run).run_id == plan.run_id


def test_a_plan_that_a_worker_loads_its_model_for_does_not_give_way(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    corrected = make_config(tmp_path, PROMPTS, job__steps=9)
    with replan.at_work(plan), pytest.raises(ResumeError, match="job.steps: 2 -> 9"):
        prepare(plan.run, corrected)
    (plan.run.leases / "at-work.killed").write_text(json.dumps({"process": gone_process()}))
    assert prepare(plan.run, corrected).run_id != plan.run_id


def test_a_refused_model_leaves_the_plan_that_is_there(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    shutil.copytree(models_dir() / "tiny", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "vae")
    with pytest.raises(ModelError, match="lacks vae"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, model__path=str(tmp_path / "broken")))
    assert load_plan(plan.run).run_id == plan.run_id


def test_a_worker_that_begins_while_a_plan_gives_way_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    looks: list[bool] = []
    real = replan.is_untouched

    def is_untouched(run: Any) -> bool:
        if not looks:
            looks.append(True)
            (plan.run.work / f"000000.{'0' * 32}.tar").touch()
        return real(run)

    monkeypatch.setattr(replan, "is_untouched", is_untouched)
    assert not replan.give_way(plan)
    assert load_plan(plan.run).run_id == plan.run_id and not list(plan.run.replaced.iterdir())


def test_a_worker_of_a_replaced_plan_never_commits_into_the_next(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    attempt = full_attempt(plan)
    moved = tmp_path / "aside"
    plan.run.work.rename(moved)  # it was asleep: nothing of it was seen
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    moved.rename(plan.run.work)
    with pytest.raises(ResumeError, match="planned again with different settings"):
        attempt.commit()
    assert not list(plan.run.shards.iterdir()) and not list(plan.run.work.iterdir())
    assert full_attempt(newer).commit()


def test_who_begins_by_a_plan_that_was_just_replaced_is_told_at_once(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    with pytest.raises(ResumeError, match="different settings just now"), replan.at_work(plan):
        pass
    newer.run.make()
    assert not list(plan.run.leases.iterdir())


def test_two_commands_that_replace_one_plan_leave_the_next_alone(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert not replan.give_way(plan), "this command had judged the plan before"
    assert load_plan(plan.run).run_id == newer.run_id


def test_what_a_planning_left_that_was_cut_off_after_a_plan_gave_way_is_no_obstacle(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    assert replan.give_way(plan)
    assert prepare(plan.run, make_config(tmp_path, PROMPTS)).run_id != plan.run_id


def test_a_corrected_command_after_a_refusal_just_works(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 9)
    shutil.copytree(models_dir() / "tiny", tmp_path / "model")
    (tmp_path / "model" / "unet" / "config.json").write_text("{")
    refused = front(tmp_path / "run", prompts, f"model.path={tmp_path / 'model'}", command=REAL)
    assert refused.returncode != 0
    corrected = front(tmp_path / "run", prompts)
    assert corrected.returncode == 0, corrected.stderr
    assert verify(tmp_path / "run").returncode == 0


def test_a_dry_run_refuses_new_files_and_lost_tars_as_the_run_does(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1)
    finish_run(plan := plan_run(tmp_path, ["a", "b", "c"], job__batch_size=1, output__batches_per_shard=1))
    assert summary(plan.run, config)["harm"] is None
    more = write_rows(tmp_path / "more.jsonl", ["d"])
    added = replace(config, job=replace(config.job, prompts=[config.job.prompts, str(more)]))
    with pytest.raises(ResumeError, match="extend=true"):
        summary(plan.run, added)
    assert summary(plan.run, replace(added, extend=True))["done_shards"] == 3
    plan.run.tar(1).unlink()
    assert run(replace(config, dry_run=True)) == EXIT_BROKEN
    counts = summary(plan.run, config)
    assert (counts["done_shards"], counts["open_shards"]) == (2, 0)
    assert "shard 000001's tar is missing" in counts["harm"]


def test_a_run_of_an_older_batchgen_goes_on_and_says_that_images_may_differ(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 9)
    front(tmp_path / "run", prompts)
    make_older(tmp_path / "run" / "plan")
    (tmp_path / "run" / "free.yaml").unlink()
    for name in ("shards/000000.json", "shards/000000.tar", "index.json"):
        (tmp_path / "run" / name).unlink()
    again = front(tmp_path / "run", prompts)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("another version of batchgen began this run") == 1
    manifest = json.loads((tmp_path / "run" / "shards" / "000000.json").read_text())
    assert manifest["computes"] == 2
    assert "another version" not in front(tmp_path / "run", prompts).stderr, "nothing is left to make"


def make_older(plan: Path) -> None:
    """As the batchgen before wrote it: without `computes`, without a key that came later."""
    from batchgen.files import sha256_bytes, to_json

    facts = json.loads((plan / "run.json").read_text())
    del facts["computes"], facts["checksum"], facts["recipe"]["speed.traced"]
    config = (plan / "config.yaml").read_text().replace("  traced: false\n", "")
    (plan / "config.yaml").write_text(config)
    facts["sha256"]["config.yaml"] = sha256_bytes(config.encode())
    facts["checksum"] = sha256_bytes(to_json(facts).encode())
    (plan / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
