"""A run on a simulated device, with a cache of its own."""

from tests.memory.conftest import plan, surroundings

__all__ = ["plan", "surroundings"]
