"""The cost model against what was measured: full-size models with random weights on one H200, fp16, 10 steps."""

from dataclasses import replace
from typing import Any

import pytest

from batchgen.memory.costs import Task, batch_s, peak_bytes, stage_bytes
from batchgen.memory.figures import Figures, at
from batchgen.memory.placement_bytes import held_bytes
from batchgen.policy import STREAM_BUFFERS
from tests.builders import POLICY
from tests.memory.cards import GIB, SD15, sd15_512, sdxl_1024

FIGURES, SDXL = sd15_512(), sdxl_1024()
SMALL, SQUARE, WIDE = (512, 512), (1024, 1024), (3840, 2224)
FP16 = replace(POLICY, dtype="fp16", micro_batch=16, decode_chunk=1)


def task(rows: int = 32, steps: int = 10) -> Task:
    return Task(512, 512, rows, steps, guided=True)


# GiB allocated at the peak of denoising.
@pytest.mark.parametrize(
    ("changes", "measured_gib"),
    [
        ({"micro_batch": 1}, 2.325),
        ({"micro_batch": 8}, 3.219),
        ({"micro_batch": 32}, 6.287),
        ({"micro_batch": 32, "guidance_split": True}, 4.257),
        ({"placement": "text_offload"}, 4.005),
        ({"placement": "model_offload", "micro_batch": 32}, 5.737),
        ({"placement": "sequential_offload", "micro_batch": 16}, 2.08),
    ],
    ids=str,
)
def test_predicted_peaks_are_within_a_tenth_and_not_far_below(changes: dict[str, Any], measured_gib: float) -> None:
    # Denoising alone; the VAE, in place at the time, was in fp32.
    weights = replace(SD15, vae_bytes=2 * SD15.vae_bytes)
    figures = replace(FIGURES, weights=weights, decode_bytes=((1, 1.0),))
    predicted = peak_bytes(figures, replace(FP16, **changes), task()) / GIB
    assert 0.97 * measured_gib < predicted < 1.1 * measured_gib


@pytest.mark.parametrize("rows", [1, 2, 8, 32])
def test_a_streamed_pass_takes_the_longer_of_both_and_little_more(rows: int) -> None:
    for copied_bytes_per_s in (1e9, 6e9, 55e9):
        figures = replace(FIGURES, copied_bytes_per_s=copied_bytes_per_s)
        one = Task(512, 512, rows, 100, guided=True)
        policy = replace(FP16, micro_batch=rows)
        compute_s = batch_s(replace(figures, copied_bytes_per_s=1e18), policy, one)
        copy_s = 100 * SD15.unet_bytes / copied_bytes_per_s
        streamed_s = batch_s(figures, replace(policy, placement="weight_streaming"), one)
        assert max(compute_s, copy_s) <= streamed_s <= 1.03 * (compute_s + copy_s)


# Milliseconds of a pass on an H200, to which 48 GB cross in a second.
@pytest.mark.parametrize(
    ("figures", "micro_batch", "in_place_ms", "streamed_ms"),
    [
        (FIGURES, 4, 29.6, {3: 49.6, 8: 43.6}), (FIGURES, 8, 53.6, {3: 69.6, 8: 64.0, 24: 56.0}),
        (FIGURES, 16, 105.6, {3: 112.0, 8: 107.2, 24: 105.6}), (FIGURES, 32, 204.8, {3: 208.0}),
        (SDXL, 1, 59.7, {3: 114.4, 8: 102.4}), (SDXL, 3, 118.8, {3: 137.1, 8: 131.4, 24: 122.7}),
        (SDXL, 8, 301.0, {3: 303.0, 24: 300.0}),
    ],
    ids=str,
)  # fmt: skip
def test_a_streamed_pass_takes_what_was_measured(
    figures: Figures, micro_batch: int, in_place_ms: float, streamed_ms: dict[int, float]
) -> None:
    figures = replace(figures, pass_s=((2 * micro_batch, in_place_ms / 1000),), copied_bytes_per_s=48e9)
    for buffers, measured_ms in streamed_ms.items():
        policy = replace(FP16, micro_batch=micro_batch, placement="weight_streaming", stream_buffers=buffers)
        one, two = (batch_s(figures, policy, Task(512, 512, micro_batch, steps, guided=True)) for steps in (1, 2))
        assert 1000 * (two - one) == pytest.approx(measured_ms, rel=0.1)


def test_more_buffers_save_time_and_take_bytes_until_all_is_in_place() -> None:
    figures = replace(FIGURES, pass_s=((16, 0.056),), copied_bytes_per_s=48e9)
    streamed = [
        replace(FP16, micro_batch=8, placement="weight_streaming", stream_buffers=count) for count in STREAM_BUFFERS
    ]
    seconds = [batch_s(figures, policy, task()) for policy in streamed]
    taken = [peak_bytes(figures, policy, task()) for policy in streamed]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 1.05 * seconds[-1]
    assert taken == sorted(taken)
    endless = replace(streamed[0], stream_buffers=1000)
    assert held_bytes(SD15, endless.placement, endless.stream_buffers)[1] == SD15.unet_bytes


def test_offload_costs_time_in_its_order() -> None:
    order = ("resident", "weight_streaming", "group_offload_leaf", "sequential_offload")
    seconds = [batch_s(FIGURES, replace(FP16, placement=placement), task()) for placement in order]
    assert seconds == sorted(seconds)


def test_guidance_in_two_passes_halves_activations_and_not_the_time() -> None:
    whole, split = replace(FP16, micro_batch=16), replace(FP16, micro_batch=16, guidance_split=True)
    saved = peak_bytes(FIGURES, whole, task()) - peak_bytes(FIGURES, split, task())
    assert saved == pytest.approx(16 * dict(FIGURES.pass_bytes)[1], rel=0.01)
    assert batch_s(FIGURES, split, task()) >= 0.99 * batch_s(FIGURES, whole, task())


def test_tiles_bound_what_decoding_takes() -> None:
    large = Task(3840, 2224, 1, 10, guided=True)
    figures = replace(FIGURES, pass_bytes=((1, 1.0),))
    whole, tiled = replace(FP16, tile_px=0), replace(FP16, tile_px=512)
    assert peak_bytes(figures, whole, large) > 5 * peak_bytes(figures, tiled, large)
    larger_than_it = replace(FP16, tile_px=4096)
    assert peak_bytes(figures, larger_than_it, large) == peak_bytes(figures, whole, large)
    assert batch_s(figures, larger_than_it, large) == batch_s(figures, whole, large)
    # Tiles that are as many pixels together as one image are tiles all the same: the whole images are there too.
    square = Task(1024, 1024, 4, 10, guided=True)
    four = peak_bytes(figures, replace(tiled, decode_chunk=4), square)
    assert four > peak_bytes(figures, replace(whole, decode_chunk=1), square)


# GB allocated at the peak of decoding, the VAE alone in place.
@pytest.mark.parametrize(
    ("figures", "size", "tile_px", "chunk", "measured_gb"),
    [
        (SDXL, SQUARE, 0, 1, 4.14), (SDXL, SQUARE, 0, 8, 30.45),
        (SDXL, SQUARE, 512, 1, 1.33), (SDXL, SQUARE, 512, 8, 7.98), (SDXL, SQUARE, 512, 32, 30.81),
        (SDXL, SQUARE, 256, 1, 0.63), (SDXL, SQUARE, 256, 8, 2.42), (SDXL, SQUARE, 256, 32, 8.53),
        (FIGURES, SMALL, 0, 1, 0.67), (FIGURES, SMALL, 0, 32, 15.24),
        (FIGURES, SMALL, 256, 1, 0.34), (FIGURES, SMALL, 256, 8, 1.15), (FIGURES, SMALL, 256, 32, 4.01),
        (FIGURES, WIDE, 2048, 1, 7.75),
    ],
    ids=str,
)  # fmt: skip
def test_predicted_peaks_of_decoding_are_within_a_tenth(
    figures: Figures, size: tuple[int, int], tile_px: int, chunk: int, measured_gb: float
) -> None:
    figures = replace(figures, pass_bytes=((1, 1.0),))
    policy = replace(FP16, placement="model_offload", tile_px=tile_px, decode_chunk=chunk)
    taken = stage_bytes(figures, policy, Task(*size, 32, 10, guided=True))["decode"] / 1e9
    assert 0.97 * measured_gb - 0.02 < taken < 1.1 * measured_gb + 0.06


def test_tiles_overlap_by_a_quarter_and_the_last_ones_are_smaller() -> None:
    # 1024 px in tiles of 512 px: they begin at 0, 384 and 768, and the last one is 256 px wide.
    figures = replace(FIGURES, decode_s=((512 * 512, ((1, 1.0),)),), pass_s=((1, 0.0),))
    figures = replace(figures, copied_bytes_per_s=1e18)
    tiled = replace(FP16, tile_px=512)
    assert batch_s(figures, tiled, Task(1024, 1024, 1, 1, guided=True)) == pytest.approx(2.5 * 2.5)


def test_unguided_jobs_run_half_the_rows() -> None:
    free = replace(task(), guided=False)
    assert peak_bytes(FIGURES, FP16, free) < peak_bytes(FIGURES, FP16, task())
    assert batch_s(FIGURES, FP16, free) < 0.6 * batch_s(FIGURES, FP16, task())


@pytest.mark.parametrize("split", [False, True])
def test_graphs_keep_the_blocks_of_a_whole_micro_batch_in_every_stage(split: bool) -> None:
    whole = replace(FP16, compile="whole", micro_batch=8, guidance_split=split)
    taken = 2 * at(FIGURES.pass_bytes, 8 if split else 16)
    for rows in (32, 1):
        plain, graphs = (
            stage_bytes(FIGURES, policy, task(rows)) for policy in (whole, replace(whole, compile="graphs"))
        )
        assert {name: graphs[name] - plain[name] for name in plain} == dict.fromkeys(plain, int(taken))


def test_sdxl_decodes_in_fp32() -> None:
    assert SDXL.weights.vae_value_bytes == 4
