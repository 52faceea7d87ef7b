"""What must not change on a resume, and how a change is told."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.plan import recipe
from batchgen.plan.recipe import (
    COMPUTES,
    as_planned,
    changes,
    computed_otherwise,
    recipe_of,
)
from batchgen.types import Lora
from tests.builders import make_config

FIXED: dict[str, Any] = {
    "job__seed": 1,
    "job__steps": 9,
    "job__guidance": 1.0,
    "job__width": 128,
    "job__height": 128,
    "job__batch_size": 4,
    "job__negative_prompt": "blurry",
    "job__scheduler": "ddim",
    "job__images_per_prompt": 2,
    "model__dtype": "fp16",
    "model__revision": "v2",
    "memory__policy__micro_batch": 1,
    "output__format": "jpg",
    "output__quality": 50,
    "output__batches_per_shard": 9,
    "determinism": "strict",
}
FREE: dict[str, Any] = {
    "run_dir": "elsewhere",
    "dry_run": True,
    "extend": True,
    "retry_failed": True,
    "launch__workers": 5,
    "output__batches_per_shard": None,
    "launch__restarts": 0,
    "launch__lease_timeout_s": 1.0,
    "launch__wait_for_others": False,
    "launch__check_disk": False,
    "price_per_gpu_hour": 2.5,
    "job__name": "other",
    "job__prompts": ["moved.txt"],
    "job__on_bad_row": "fail",
    "job__limit": 5,
    "model__path": "/moved/tiny",
    "model__lora": "/moved/a.safetensors",  # whose content counts
}


@pytest.mark.parametrize("name", FIXED)
def test_a_setting_that_changes_images_or_shards_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    before = recipe_of(make_config(tmp_path), "m")
    [change] = changes(before, recipe_of(make_config(tmp_path, **{name: FIXED[name]}), "m"))
    assert change.startswith(f"{name.replace('__', '.')}: ")


@pytest.mark.parametrize("name", FREE)
def test_how_and_where_a_run_is_worked_on_is_free(tmp_path: Path, name: str) -> None:
    before = recipe_of(make_config(tmp_path), "m")
    assert changes(before, recipe_of(make_config(tmp_path, **{name: FREE[name]}), "m")) == []


def test_another_model_is_a_change(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert changes(recipe_of(config, "old"), recipe_of(config, "new")) == ['model: "old" -> "new"']


def test_the_content_and_the_weight_of_the_jobs_lora_count_and_not_its_place(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    one = Lora("/a.safetensors", 1.0, "a1")
    before = recipe_of(config, "m", [one])
    assert changes(before, recipe_of(config, "m", [one._replace(path="/moved.safetensors")])) == []
    for others in ([one._replace(weight=0.5)], [one._replace(sha256="b2")], [], [one, one]):
        [told] = changes(before, recipe_of(config, "m", others))
        assert told.startswith('loras: [["a1", 1.0]] -> ')
    assert changes(recipe_of(config, "m"), recipe_of(config, "m", [])) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": (1, 2)}, {"a": [1, 2]}, []),
        ({"a": 1, "b": None}, {"a": 2, "b": "x"}, ["a: 1 -> 2", 'b: null -> "x"']),
        ({"gone": 1}, {"new": 2}, ["gone: 1 -> null", "new: null -> 2"]),
        ({"output.batches_per_shard": 32}, {"output.batches_per_shard": None}, []),
        (
            {"output.batches_per_shard": None},
            {"output.batches_per_shard": 32},
            ["output.batches_per_shard: null -> 32"],
        ),
        ({"job.limit": 24}, {}, []),
        ({}, {"determinism": "best"}, []),
        ({}, {"determinism": "strict"}, ['determinism: "best" -> "strict"']),
    ],
)
def test_changes_say_what_was_and_what_is(old: dict[str, Any], new: dict[str, Any], told: list[str]) -> None:
    assert changes(old, new) == told


def test_a_long_value_is_shortened_with_both_its_ends() -> None:
    [change] = changes({"a": "start" + "x" * 500 + "end"}, {"a": 1})
    assert len(change) < 80
    assert "start" in change
    assert "end" in change


def test_a_key_that_the_plan_lacks_counts_as_what_the_code_did_then(tmp_path: Path) -> None:
    new = recipe_of(make_config(tmp_path), "m")
    old = {key: value for key, value in new.items() if key not in ("speed.traced", "model.variant", "output.quality")}
    assert changes(old, new) == []
    assert changes(old, new | {"speed.traced": True}) == ["speed.traced: false -> true"]


def test_a_key_whose_default_changed_keeps_what_it_was_for_plans_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe._BEFORE, "speed.attention", "plain")
    assert changes({}, {"speed.attention": "plain"}) == []
    assert changes({}, {"speed.attention": "sdpa"}) == ['speed.attention: "plain" -> "sdpa"']
    assert as_planned({"job": {"name": "j"}}).speed.attention == "plain"
    assert as_planned({"speed": {"attention": "flash"}}).speed.attention == "flash"


def test_what_is_left_to_the_planner_is_as_it_was_planned() -> None:
    assert changes({"output.batches_per_shard": 32}, {"output.batches_per_shard": None}) == []
    assert changes({"output.batches_per_shard": 32}, {"output.batches_per_shard": 9}) != []


def test_going_on_by_another_way_of_computing_is_told() -> None:
    assert computed_otherwise(COMPUTES, "ddim") is None
    assert "visibly with job.scheduler=ddim" in str(computed_otherwise(1, "ddim"))
    assert "visibly" not in str(computed_otherwise(1, "model"))
