"""One CPU generator for each image draws all its noise, so that batching, device and resume never matter."""

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A new CPU generator for each seed. Generators have a state, so every attempt needs new ones."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@contextmanager
def seeded_steps(scheduler: Any, rows: Sequence[torch.Generator]) -> Iterator[None]:
    """A context in which each step of the scheduler draws the noise of a row from that row's generator.

    Many pipelines of diffusers 0.42.1 don't hand their generators on to the steps, and a scheduler that adds noise then
    takes it from torch's global state.
    """
    if "generator" not in inspect.signature(scheduler.step).parameters:
        yield
        return
    plain = scheduler.step

    @functools.wraps(plain)  # pipelines look at its parameters
    def step(*given: Any, **named: Any) -> Any:
        if named.get("generator") is None:
            named["generator"] = list(rows)
        return plain(*given, **named)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step
