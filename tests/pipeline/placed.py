"""What the tests of placements and levers share: images under a policy, and how far they are apart."""

import pytest

pytest.importorskip("torch")

import numpy as np

from tests.pipeline.test_engine import POLICY, make, prompt

PROMPTS = [prompt(place) for place in range(3)]


def images(engine, **changes):
    """{key: pixels} of the prompts under POLICY with these changes."""
    policy, why = engine.prepare(changed(**changes))
    assert why is None
    return make(engine, PROMPTS, policy)


def changed(**changes):
    from dataclasses import replace

    return replace(POLICY, **changes)


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def furthest(one, other):
    return max(int(np.abs(one[key].astype(int) - other[key].astype(int)).max()) for key in one)
