"""From a configuration to a plan: extensions at once, plans that give way, what a run of an older batchgen lacks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchgen import prepare as prepare_module
from batchgen.config.schema import Config
from batchgen.errors import ModelError, ResumeError
from batchgen.paths import RunDir
from batchgen.places import models_dir
from batchgen.plan import store as plan_module
from batchgen.plan.planner import image_seed
from batchgen.plan.store import Plan, load_plan
from batchgen.prepare import prepare
from batchgen.prompts import READS
from tests.builders import finish_run, make_config, plan_run, write_rows
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
    with pytest.raises(ResumeError, match=r"za\.jsonl: not named in job\.prompts"):
        prepare(plan.run, mine)


def test_of_two_commands_that_raise_the_limit_one_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS, job__limit=2))
    everything = make_config(tmp_path, PROMPTS)
    first_is_another(monkeypatch, lambda: prepare(plan.run, everything))
    longer = prepare(plan.run, everything)
    assert (prompts_of(longer), len(longer.segments), longer.limit) == (PROMPTS, 2, None)


def test_of_two_higher_limits_the_lower_one_is_refused_if_it_comes_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS, job__limit=1))
    first_is_another(monkeypatch, lambda: prepare(plan.run, make_config(tmp_path, PROMPTS)))
    with pytest.raises(ResumeError, match=r"job\.limit=3, and .* has 4 rows planned: a run never loses any"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, job__limit=3))


def test_a_raised_limit_beside_new_files_needs_extend_and_plans_the_rest_first(tmp_path: Path) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS, job__limit=2))
    config = extended(tmp_path, "za.jsonl", job__limit=5)
    config.extend = False
    with pytest.raises(ResumeError, match=r"za\.jsonl: new.\n.*extend=true"):
        prepare(plan.run, config)
    config.extend = True
    longer = prepare(plan.run, config)
    assert prompts_of(longer) == [*PROMPTS, "za.jsonl one"]
    config.job.limit = None
    assert prompts_of(prepare(plan.run, config)) == [*PROMPTS, "za.jsonl one", "za.jsonl two"]


def test_rows_are_appended_again_after_an_extension_and_to_a_file_that_moved(tmp_path: Path) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS))
    for moved in ("prompts.jsonl", "moved.jsonl"):
        rows = (tmp_path / "prompts.jsonl").read_text() + '{"prompt": "fox 0"}\n'
        (tmp_path / "prompts.jsonl").unlink()
        config = make_config(tmp_path, PROMPTS, extend=True, job__prompts=str(tmp_path / moved))
        (tmp_path / moved).write_text(rows)
        longer = prepare(plan.run, config)
        (tmp_path / "prompts.jsonl").write_text(rows)
    assert prompts_of(longer) == [*PROMPTS, "fox 0", "fox 0"]
    assert len({prompt.seed for prompt in longer.prompts()}) == 6
    assert [one["file"] for one in longer.inputs] == [str(tmp_path / "moved.jsonl")]
    config.extend = False
    assert len(prepare(plan.run, config).segments) == 3, "it is the plan's own file now"


def test_a_line_end_at_a_files_end_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("fox\nhen")
    finish_run(plan := plan_run(tmp_path, job__prompts=str(path)))
    path.write_text("fox\nhen\n")
    assert len(prepare(plan.run, make_config(tmp_path, job__prompts=str(path))).segments) == 1


def test_a_limit_that_changes_before_anything_is_begun_plans_anew(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS, job__limit=3)
    for limit, expected in ((None, PROMPTS), (2, PROMPTS[:2])):
        newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__limit=limit))
        assert (prompts_of(newer), len(newer.segments)) == (expected, 1)


def test_another_model_is_told_by_its_path(tmp_path: Path) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS))
    shutil.copytree(models_dir() / "tiny", tmp_path / "other")
    with (tmp_path / "other" / "unet" / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ResumeError, match="it is not the model that was planned with") as caught:
        prepare(plan.run, make_config(tmp_path, PROMPTS, model__path=str(tmp_path / "other")))
    assert '/other" (it is' in str(caught.value) and f"set model.path={plan.config.model.path}" in str(caught.value)


@pytest.mark.parametrize("is_relative", [True, False])
def test_a_model_whose_files_changed_is_told_so_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models_dir() / "tiny", tmp_path / "M" / "n1")
    named = {"model__path": "M/n1" if is_relative else str(tmp_path / "M" / "n1")}
    finish_run(plan := plan_run(tmp_path, PROMPTS, **named))
    with (tmp_path / "M" / "n1" / "unet" / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ResumeError, match="n1: its files have changed"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, **named))


def test_a_strict_run_of_another_way_of_computing_is_not_extended(tmp_path: Path) -> None:
    finish_run(plan := plan_run(tmp_path, PROMPTS, job__limit=2, determinism="strict"))
    make_older(plan.run.plan.root)
    assert prepare(plan.run, make_config(tmp_path, PROMPTS, job__limit=2, determinism="strict")).shard_count == 1
    with pytest.raises(ResumeError, match="determinism=strict does not go on"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, determinism="strict"))


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


def test_extensions_of_a_plan_give_way_with_it(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    longer = prepare(plan.run, extended(tmp_path, "za.jsonl"))
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert (len(longer.segments), len(newer.segments)) == (2, 1)


def test_a_refused_model_leaves_the_plan_that_is_there(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    shutil.copytree(models_dir() / "tiny", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "vae")
    with pytest.raises(ModelError, match="lacks vae"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, model__path=str(tmp_path / "broken")))
    assert load_plan(plan.run).run_id == plan.run_id


def test_a_corrected_command_after_a_refusal_just_works(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 9)
    shutil.copytree(models_dir() / "tiny", tmp_path / "model")
    (tmp_path / "model" / "unet" / "config.json").write_text("{")
    refused = front(tmp_path / "run", prompts, f"model.path={tmp_path / 'model'}", command=REAL)
    assert refused.returncode != 0
    corrected = front(tmp_path / "run", prompts)
    assert corrected.returncode == 0, corrected.stderr
    assert verify(tmp_path / "run").returncode == 0


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


TABLE = "prompt, Seed,cfg,images per prompt,note\na fox,5,3,2,x\n\na hen,6,3,2,y\na fox,7.0,3,2,\n"


def test_an_older_plan_is_extended_by_what_its_reader_made_of_the_files(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, ["a fox"])
    make_older(plan.run.plan.root)
    config = make_config(tmp_path, ["a fox"], extend=True)
    (tmp_path / "more.csv").write_text(TABLE)
    config.job.prompts = [config.job.prompts, str(tmp_path / "more.csv")]
    longer = prepare(plan.run, config)
    assert (longer.reads, [segment.reads for segment in longer.segments]) == (1, [1, 1])
    _, fox, hen, again = longer.prompts()
    for prompt, key, text, occurrence in (
        (fox, "001000000000-00", "a fox", 1),
        (hen, "001000000002-00", "a hen", 0),
        (again, "001000000003-00", "a fox", 2),
    ):
        assert (prompt.key, prompt.seed) == (key, image_seed(0, text, "", occurrence, 0))
        assert (prompt.prompt, prompt.guidance) == (text, config.job.guidance)
    assert fox.extra == {" Seed": "5", "cfg": "3", "images per prompt": "2", "note": "x"}
    assert longer.segments[1].rejects == 1, "a blank line was a bad row"

    other = prepare(RunDir(tmp_path / "new"), config)
    assert other.reads == READS > 1
    assert [(one.key, one.seed, one.guidance) for one in other.prompts()][1:] == [
        (f"00100000000{row}-0{copy}", seed + copy, 3.0) for row, seed in ((0, 5), (2, 6), (3, 7)) for copy in (0, 1)
    ]
    assert prepare(other.run, config).segments[0].reads == READS


def test_rows_that_share_seeds_are_told_when_they_are_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_run(tmp_path, [{"prompt": "a fox", "seed": 5}, {"prompt": "a fox", "seed": 6}], job__images_per_prompt=2)
    told = capsys.readouterr().err
    assert told.count("prompts.jsonl:2 both use 6; seeds that lie 2 apart would not") == 1


def make_older(plan: Path) -> None:
    """As the batchgen before wrote it: without `computes` and `reads`, without a key that came later."""
    from batchgen.files import sha256_bytes, to_json

    facts = json.loads((plan / "run.json").read_text())
    del facts["computes"], facts["reads"], facts["checksum"], facts["recipe"]["speed.traced"]
    config = (plan / "config.yaml").read_text().replace("  traced: false\n", "")
    (plan / "config.yaml").write_text(config)
    facts["sha256"]["config.yaml"] = sha256_bytes(config.encode())
    facts["checksum"] = sha256_bytes(to_json(facts).encode())
    (plan / "run.json").write_text(json.dumps(facts, indent=1) + "\n")


def test_blank_lines_stop_nothing_and_move_no_key(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red car\n\n \t\na cat\n\n")
    config = make_config(tmp_path, job__on_bad_row="fail", job__prompts=str(tmp_path / "p.txt"))
    plan = prepare(RunDir(tmp_path / "run"), config)
    assert [prompt.key for prompt in plan.prompts()] == ["000000000000-00", "000000000003-00"]
    assert plan.segments[0].rejects == 0
