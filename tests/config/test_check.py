"""What configurations are valid: a wrong value is told in one line."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest

from batchgen.config.bounds import BOUNDS
from batchgen.config.check import CHOICES, check, did_you_mean
from batchgen.config.schema import Config, flatten
from batchgen.errors import ConfigError
from tests.builders import make_config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job__batch_size", 1),
        ("job__batch_size", 4096),
        ("job__width", 64),
        ("job__height", 16384),
        ("job__guidance", 0),
        ("job__guidance", 100.0),
        ("job__seed", 2**32 - 1),
        ("job__limit", None),
        ("memory__policy__tile_px", 0),
        ("memory__policy__micro_batch", None),
        ("job__columns__steps", "my steps"),
        ("launch__restarts", 0),
        ("launch__workers", 1),
        ("output__quality", 100),
        ("job__scheduler", "dpm++"),
        ("job__prompts", ["a.txt", "b.txt"]),
        ("model__original_size", [640, 480]),
        ("model__crop_top_left", [0, 0]),
    ],
)
def test_possible_values_pass(tmp_path: Path, name: str, value: Any) -> None:
    check(make_config(tmp_path, **{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("job__batch_size", 0, "job.batch_size must be between 1 and 4096, got 0"),
        ("job__batch_size", True, "job.batch_size must be a whole number, got True"),
        ("job__batch_size", 2.0, "job.batch_size must be a whole number, got 2.0"),
        ("job__width", 100, "job.width must be a multiple of 8, got 100"),
        ("job__height", 16392, "job.height must be between 64 and 16384"),
        ("job__guidance", -0.1, "job.guidance must be between 0.0 and 100.0"),
        ("job__guidance", float("nan"), "job.guidance must be between"),
        ("job__seed", 2**32, "job.seed must be between"),
        ("job__seed", -1, "job.seed must be between"),
        ("job__limit", 0, "job.limit must be between"),
        ("job__steps", 10**400, "job.steps must be between"),
        ("model__size_px", 100, "model.size_px must be a multiple of 8"),
        ("memory__policy__tile_px", 8, "memory.policy.tile_px must be between"),
        ("memory__policy__stream_buffers", -1, "memory.policy.stream_buffers must be between"),
        ("launch__workers", 0, "launch.workers must be between"),
        ("launch__lease_timeout_s", "60", "launch.lease_timeout_s must be a number"),
        ("output__quality", 101, "output.quality must be between"),
        ("output__format", "jpeg", "output.format=jpeg is not valid; did you mean"),
        ("job__scheduler", "eulr", "job.scheduler=eulr is not valid; did you mean euler"),
        ("model__dtype", "half", "model.dtype=half is not valid; choose one of auto, fp32, fp16, bf16"),
        ("job__on_bad_row", "", "job.on_bad_row= is not valid"),
        ("job__name", "", "job.name='' must be a plain name"),
        ("job__name", "a/b", "job.name='a/b' must be a plain name"),
        ("memory__policy__placement", "zzz", "memory.policy.placement=zzz is not valid; choose one of resident, "),
        ("job__prompts", [], "job.prompts must be"),
        ("job__prompts", "", "job.prompts must be"),
        ("job__prompts", ["a.txt", 3], "job.prompts must be"),
    ],
)
def test_an_impossible_value_is_told_in_one_line(tmp_path: Path, name: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(make_config(tmp_path, **{name: value}))
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_possible(tmp_path: Path, name: str) -> None:
    for value in CHOICES[name]:
        overrides: dict[str, Any] = {name.replace(".", "__"): value}
        check(make_config(tmp_path, **overrides))


def test_bounds_and_choices_are_of_keys_that_exist() -> None:
    leaves = flatten(asdict(Config()))
    assert set(CHOICES) <= leaves.keys()
    assert BOUNDS.keys() <= {name.rpartition(".")[2] for name in leaves}


@pytest.mark.parametrize(
    ("wrong", "known", "said"),
    [
        ("stpes", ["steps", "seed"], "; did you mean steps?"),
        ("zzz", ["steps", "seed"], "; choose one of steps, seed"),
        (
            "zzz",
            [f"name{number}" for number in range(50)],
            "; choose one of " + ", ".join(f"name{number}" for number in range(12)) + ", and 38 more",
        ),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_ones(wrong: str, known: list[str], said: str) -> None:
    assert did_you_mean(wrong, known) == said


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("original_size", [640], r"\[width, height\] in pixels, each from 1 to 65536"),
        ("target_size", [640, 0], r"\[width, height\]"),
        ("crop_top_left", [-1, 0], r"\[x, y\] in pixels, each from 0"),
    ],
)
def test_a_size_that_is_told_is_two_numbers(tmp_path: Path, name: str, value: list[int], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(make_config(tmp_path, **{f"model__{name}": cast(Any, value)}))


def test_what_negative_prompts_are_told_takes_both_sizes(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"model__negative_original_size": [64, 64], "model__negative_target_size": [64, 64]}
    check(make_config(tmp_path, **sizes))
    for name in sizes:
        with pytest.raises(ConfigError, match="set both, or none"):
            check(make_config(tmp_path, **{name: sizes[name]}))
    with pytest.raises(ConfigError, match="set both, or none"):
        check(make_config(tmp_path, model__negative_crop_top_left=[0, 0]))


def test_tars_leave_only_for_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output\.keep_local=false needs output\.copy_to=ADDRESS"):
        check(make_config(tmp_path, output__keep_local=False))
    check(make_config(tmp_path, output__keep_local=False, output__copy_to="s3://night/a"))


def test_a_time_limit_that_the_warning_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"launch\.time_limit=1m leaves no time to work.*launch\.warn_s=120 seconds"):
        check(make_config(tmp_path, launch__time_limit="1m"))
    check(make_config(tmp_path, launch__time_limit="1m", launch__warn_s=5))


@pytest.mark.parametrize(
    ("compile", "others", "told"),
    [
        ("graphs", {"memory__policy__placement": "model_offload"}, "in place (resident, text_offload), but"),
        (
            "whole",
            {"memory__policy__placement": "weight_streaming"},
            "in place (resident, text_offload, model_offload)",
        ),
        ("graphs", {"speed__traced": True}, "speed.compile=graphs does not work with speed.traced=true"),
        ("graphs", {"speed__attention": "xformers"}, "does not work with speed.attention=xformers"),
    ],
)
def test_what_cannot_be_compiled_is_refused(tmp_path: Path, compile: str, others: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(make_config(tmp_path, speed__compile=compile, **others))
    assert told in str(caught.value)
