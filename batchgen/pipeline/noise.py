"""The starting noise: one CPU generator for each image, so that batching, device and resume never matter."""

from collections.abc import Sequence

import torch


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A new CPU generator for each seed. They are stateful: make new ones for every attempt."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def starting_noise(rows: Sequence[torch.Generator], shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise of (rows, *shape), fp32 on the CPU, each row drawn from its own generator alone.

    Drawn in fp32 whatever the model computes in: a draw in half precision is the fp32 one rounded.
    """
    return torch.stack([torch.randn(shape, generator=generator, dtype=torch.float32) for generator in rows])
