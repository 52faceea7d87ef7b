"""Flipped bits, cut files and hostile input: all of it is named, and no parser breaks."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.commands import answer

pytestmark = pytest.mark.slow


def fuzz(folder, seconds, seed=None):
    folder.mkdir(exist_ok=True)
    result = answer("tests.torture.fuzz", folder, seconds, *([] if seed is None else [seed]))
    assert result["problems"] == []
    return result["tried"]


def test_some_damages_are_noticed(tmp_path):
    result = answer("tests.torture.damage", tmp_path, 100, 4096)
    assert result["unnoticed"] == []


def test_a_few_seconds_of_hostile_input_break_no_parser(tmp_path):
    assert fuzz(tmp_path, 5, seed=7) > 300


@pytest.mark.torture
def test_every_flip_and_cut_is_noticed(tmp_path):
    result = answer("tests.torture.damage", tmp_path, 1000, 512)
    assert result["unnoticed"] == []
    assert (result["flips"], result["cuts"] > 100) == (1000, True)


@pytest.mark.torture
def test_ten_minutes_of_hostile_input_break_no_parser(tmp_path):
    with ThreadPoolExecutor(2) as pool:  # five minutes on each of two cores
        tried = list(pool.map(lambda name: fuzz(tmp_path / name, 300), ("one", "two")))
    assert min(tried) > 20_000
