"""How LoRA files are written."""

from typing import Any

import pytest

from batchgen.config.check import check
from batchgen.config.loras import parse_loras
from batchgen.errors import ConfigError
from tests.builders import make_config


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, []),
        ("", []),
        ("<none>", []),
        ([], []),
        ("a.safetensors", [("a.safetensors", 1.0)]),
        ("a.safetensors:0.8", [("a.safetensors", 0.8)]),
        ("a.safetensors:-1", [("a.safetensors", -1.0)]),
        (" a.safetensors:0.8 + b.safetensors ", [("a.safetensors", 0.8), ("b.safetensors", 1.0)]),
        (["a.safetensors:1e-1", "b.safetensors"], [("a.safetensors", 0.1), ("b.safetensors", 1.0)]),
        (["/c++/a.safetensors:2"], [("/c++/a.safetensors", 2.0)]),  # a list says where each ends
        ("12:30/a.safetensors", [("12:30/a.safetensors", 1.0)]),
        ("org/name/a.safetensors:0.5", [("org/name/a.safetensors", 0.5)]),
    ],
)
def test_files_and_weights(said: Any, found: list[tuple[str, float]]) -> None:
    assert parse_loras(said) == found


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("a.safetensors:x", "the weight must be a number of at most 100, such as a.safetensors:0.8"),
        ("a.safetensors:nan", "the weight must be a number"),
        ("a.safetensors:101", "the weight must be a number"),
        ("a.safetensors+a.safetensors:2", "named twice"),
        (3, "must be text"),
        ([3], "must be text"),
        ({"a": 1}, "must be text"),
    ],
)
def test_what_cannot_be_read_is_refused(said: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_loras(said)


def test_the_key_is_checked_as_all_others(tmp_path: Any) -> None:
    check(make_config(tmp_path, model__lora=["a.safetensors:0.8", "b.safetensors"]))
    with pytest.raises(ConfigError, match="model.lora: lora a.safetensors:x: the weight"):
        check(make_config(tmp_path, model__lora="a.safetensors:x"))
