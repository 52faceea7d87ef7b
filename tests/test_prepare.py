"""From a configuration to a plan: extensions at once, plans that give way, what a run of an older batchgen lacks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from batchgen import prepare as prepare_module
from batchgen.config.schema import Config
from batchgen.errors import ModelError, ResumeError
from batchgen.paths import RunDir, models_dir
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
