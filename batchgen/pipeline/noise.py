"""The starting noise comes from one CPU generator for each image, so that batching, device and resume never matter."""

from collections.abc import Sequence

import torch


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A new CPU generator for each seed. Generators have a state, so every attempt needs new ones."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def starting_noise(rows: Sequence[torch.Generator], shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise of (rows, *shape) in fp32 on the CPU. Each row is drawn only from its own generator.

    It is drawn in fp32 whatever dtype the model has; noise drawn in half precision would be the same, rounded.
    """
    return torch.stack([torch.randn(shape, generator=generator, dtype=torch.float32) for generator in rows])
