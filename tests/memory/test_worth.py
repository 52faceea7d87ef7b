"""Whether a size is measured: what a probe costs beside the job. Pure."""

from dataclasses import replace

import pytest

from batchgen.memory.costs import Task
from batchgen.memory.estimate import at_speed
from batchgen.memory.figures import at, scaled
from batchgen.memory.worth import SHARE, START_S, image_s, images_for_a_probe, nearest, probe_s
from tests.memory.cards import sd15_512, sdxl_1024

TASK = Task(512, 512, 32, 30, guided=True)


@pytest.mark.parametrize("teraflops", [4.0, 40.0, 390.0])
def test_a_job_that_is_measured_takes_many_times_as_long_as_the_probe(teraflops: float) -> None:
    for figures, task in ((sd15_512(teraflops), TASK), (sdxl_1024(teraflops), replace(TASK, width=1024, height=1024))):
        enough = images_for_a_probe(figures, task)
        assert enough * image_s(figures, task) * SHARE >= probe_s(figures, task) > START_S
        assert (enough - 1) * image_s(figures, task) * SHARE < probe_s(figures, task)


def test_on_a_slow_card_a_night_of_few_images_is_measured_and_on_a_fast_one_it_is_over_too_soon() -> None:
    slow, fast = (images_for_a_probe(sd15_512(teraflops), TASK) for teraflops in (4.0, 390.0))
    assert slow < 200 < 1000 < fast < 2000


def test_small_batches_and_jobs_without_guidance_take_a_shorter_probe() -> None:
    figures = sd15_512(40)
    whole_s = probe_s(figures, TASK)
    assert probe_s(figures, replace(TASK, rows=2)) < probe_s(figures, replace(TASK, guided=False)) < whole_s


def test_an_estimate_has_the_speed_of_the_card() -> None:
    guess = replace(sd15_512(30), measured=False)
    slow, fast = (at_speed(guess, flop_per_s, 5e9) for flop_per_s in (30e12 / 0.35 / 10, 30e12 / 0.35 * 10))
    assert at(slow.pass_s, 32) == pytest.approx(10 * at(guess.pass_s, 32))
    assert at(fast.pass_s, 32) == pytest.approx(max(0.02, at(guess.pass_s, 32) / 10))
    assert (slow.copied_bytes_per_s, slow.pass_bytes) == (5e9, guess.pass_bytes)
    assert at_speed(guess, None, 5e9) == replace(guess, copied_bytes_per_s=5e9)


def test_a_size_is_taken_for_one_that_is_like_it() -> None:
    sizes = [(512, 512), (1024, 1024), (768, 512)]
    assert nearest(sizes, replace(TASK, width=640)) == (768, 512)
    assert nearest(sizes, replace(TASK, width=2048, height=2048)) == (1024, 1024)
    assert nearest(sizes, replace(TASK, width=4096, height=2048)) is None
    assert nearest([], TASK) is None


def test_figures_of_another_size_go_by_pixels_and_are_not_trusted_as_measured_ones() -> None:
    known, guess = sd15_512(40), replace(sd15_512(40), stream_groups=((1.0, 1.0),))
    twice = scaled(known, 512 * 512, 1024 * 512, guess)
    assert at(twice.pass_s, 8) == pytest.approx(2 * at(known.pass_s, 8))
    assert at(twice.pass_bytes, 8) == pytest.approx(2 * at(known.pass_bytes, 8))
    assert (twice.decode_bytes, twice.stream_groups, twice.measured) == (known.decode_bytes, ((1.0, 1.0),), False)
