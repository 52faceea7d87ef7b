"""The starting noise of each row."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.pipeline.noise import generators, starting_noise


def test_starting_noise_is_each_seeds_own_to_the_bit():
    rows = starting_noise(generators([5, 6, 7]), (4, 8, 8))
    alone = starting_noise(generators([6]), (4, 8, 8))
    assert rows.shape == (3, 4, 8, 8) and rows.dtype == torch.float32
    assert torch.equal(rows[1], alone[0])
