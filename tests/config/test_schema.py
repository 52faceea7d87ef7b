"""The configuration past Hydra: bounds and choices are told in one line, and YAML gives back the same."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchgen.config.schema import flatten, from_plain, known_keys, prompt_patterns, without_query
from tests.builders import make_config


def test_what_a_plan_saves_as_yaml_comes_back_the_same(tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        job__prompts=["a.txt", "b/*.csv"],
        job__negative_prompt="null",
        job__columns__prompt="no",
        job__guidance=1e-3,
        model__revision="1e5",
        memory__policy__tile_px=0,
        launch__workers=3,
    )
    text = yaml.safe_dump(asdict(config), sort_keys=False)
    assert from_plain(yaml.safe_load(text)) == config


def test_a_plan_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError, match="stepz"):
        from_plain({"job": {"stepz": 3}})


@pytest.mark.parametrize(("prompts", "patterns"), [("a.txt", ["a.txt"]), (["a", "b"], ["a", "b"])])
def test_prompts_are_one_pattern_or_several(tmp_path: Path, prompts: Any, patterns: list[str]) -> None:
    assert prompt_patterns(make_config(tmp_path, job__prompts=prompts)) == patterns


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://host/p.csv?a=1#b", "https://host/p.csv"),
        ("http://host/p.csv#b", "http://host/p.csv"),
        ("s3://bucket/p?.csv", "s3://bucket/p?.csv"),
        ("a?.csv", "a?.csv"),
    ],
)
def test_the_query_of_an_address_is_left_out(text: str, kept: str) -> None:
    assert without_query(text) == kept


def test_columns_reach_the_readers(tmp_path: Path) -> None:
    found = make_config(tmp_path, job__columns__prompt="caption", job__columns__seed=None).job.columns
    assert (found.prompt, found.seed, found.key) == ("caption", None, "key")


def test_keys_are_dotted_and_lists_stay_whole() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [{"e": 2}]}}) == {"a.b.c": 1, "a.d": [{"e": 2}]}
    assert {"job", "job.steps", "memory.policy", "memory.policy.tile_px"} <= set(known_keys())
