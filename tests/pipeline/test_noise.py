"""Each row's noise is its own, in the beginning and in every step."""

import pytest

pytest.importorskip("torch")

import inspect

import diffusers
import torch

from batchgen.pipeline.noise import generators, seeded_steps


@pytest.mark.parametrize("kind", ["EulerAncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler"])
def test_a_step_that_adds_noise_draws_each_row_from_its_own_generator_without_being_given_it(kind):
    def stepped(seeds):
        scheduler = getattr(diffusers, kind)()
        scheduler.set_timesteps(3)
        with seeded_steps(scheduler, generators(seeds)):
            assert "generator" in inspect.signature(scheduler.step).parameters  # pipelines look at them
            rows = torch.ones(len(seeds), 4, 8, 8)
            return scheduler.step(rows, scheduler.timesteps[0], rows, return_dict=False)[0]

    together, alone = stepped([5, 6, 7]), stepped([6])
    assert torch.equal(together[1], alone[0]) and not torch.equal(together[0], together[1])


def test_generators_that_are_given_are_used_and_the_scheduler_is_left_as_it_was():
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    with seeded_steps(scheduler, generators([5])):
        scheduler.set_timesteps(3)
        rows = torch.ones(1, 4, 8, 8)
        given = scheduler.step(rows, scheduler.timesteps[0], rows, generator=generators([6]), return_dict=False)[0]
    assert "step" not in vars(scheduler)
    scheduler.set_timesteps(3)
    assert torch.equal(given, scheduler.step(rows, scheduler.timesteps[0], rows, generator=generators([6])).prev_sample)
