"""What is tried after an out-of-memory error: always smaller, always at the stage that failed, and it ends."""

from dataclasses import replace

import pytest

from batchgen.memory.choose import CHOSEN_FROM
from batchgen.memory.stepdown import step_down
from batchgen.policy import Policy
from tests.builders import POLICY

LARGE = replace(POLICY, micro_batch=16, decode_chunk=4)


def all_steps(policy: Policy, stage: str, edge_px: int = 512) -> list[Policy]:
    steps = []
    while (smaller := step_down(policy, stage, edge_px, edge_px)) is not None:
        steps.append(smaller)
        policy = smaller
        assert len(steps) < 100
    return steps


def test_denoising_takes_fewer_rows_then_splits_guidance_then_moves_weights() -> None:
    steps = all_steps(LARGE, "denoise")
    assert [step.micro_batch for step in steps[:4]] == [8, 4, 2, 1]
    assert steps[4] == replace(LARGE, micro_batch=1, guidance_split=True)
    assert [step.placement for step in steps[5:]] == list(CHOSEN_FROM[1:])


def test_weights_do_not_move_to_a_host_that_cannot_hold_them() -> None:
    last = replace(LARGE, micro_batch=1, guidance_split=True)
    assert step_down(last, "denoise", 512, 512, placements=["resident"]) is None
    smaller = step_down(last, "denoise", 512, 512, placements=["resident", "weight_streaming"])
    assert smaller == replace(last, placement="weight_streaming")


def test_without_guidance_there_is_none_to_split() -> None:
    alone = replace(LARGE, micro_batch=1)
    step = step_down(alone, "denoise", 512, 512, guided=False)
    assert step == replace(alone, placement=CHOSEN_FROM[1])
    assert step_down(alone, "denoise", 512, 512, guided=True) == replace(alone, guidance_split=True)


def test_what_changes_no_bit_comes_first() -> None:
    streamed = replace(LARGE, placement="weight_streaming", stream_buffers=24)
    assert step_down(streamed, "denoise", 512, 512) == replace(streamed, stream_buffers=3)


@pytest.mark.parametrize(("micro_batch", "next_one"), [(3, 2), (12, 8), (33, 32), (100, 32), (2, 1)])
def test_fewer_rows_are_those_that_rows_are_padded_to(micro_batch: int, next_one: int) -> None:
    smaller = step_down(replace(LARGE, micro_batch=micro_batch), "denoise", 512, 512)
    assert smaller is not None
    assert smaller.micro_batch == next_one


def test_decoding_takes_smaller_chunks_then_smaller_tiles_then_moves_weights() -> None:
    steps = all_steps(LARGE, "decode")
    assert [step.decode_chunk for step in steps[:2]] == [2, 1]
    assert [step.tile_px for step in steps[2:4]] == [256, 128]
    assert {step.micro_batch for step in steps} == {16}
    assert [step.placement for step in steps[4:]] == list(CHOSEN_FROM[1:])


@pytest.mark.parametrize(
    ("edge_px", "tile_px", "smaller"),
    [(3840, 0, 2048), (3840, 512, 256), (640, 0, 512), (520, 512, 256), (300, 0, 256)],
)
def test_tiles_shrink_by_powers_of_two(edge_px: int, tile_px: int, smaller: int) -> None:
    step = step_down(replace(POLICY, tile_px=tile_px), "decode", edge_px, 64)
    assert step is not None
    assert step.tile_px == smaller


@pytest.mark.parametrize("stage", ["load", "encode"])
def test_what_has_no_rows_moves_weights_at_once(stage: str) -> None:
    assert [step.placement for step in all_steps(LARGE, stage)] == list(CHOSEN_FROM[1:])


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_no_step_is_taken_twice_and_the_last_placement_ends_it(stage: str) -> None:
    steps = all_steps(LARGE, stage)
    assert len(set(steps)) == len(steps)
    assert steps[-1].placement == CHOSEN_FROM[-1]


def test_a_trace_ends_where_the_weights_begin_to_move_under_it() -> None:
    steps = {step.placement: step.traced for step in all_steps(replace(LARGE, traced=True), "load")}
    assert steps["model_offload"]
    assert not any(steps[name] for name in CHOSEN_FROM[3:])


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_graphs_are_the_first_to_go_and_what_is_compiled_stays(stage: str) -> None:
    steps = all_steps(replace(LARGE, compile="graphs"), stage)
    assert steps[0] == replace(LARGE, compile="whole")
    assert not any(step.compile == "graphs" for step in steps)


def test_what_there_is_no_memory_to_compile_is_eager() -> None:
    whole = replace(LARGE, compile="whole")
    assert step_down(replace(whole, compile="graphs"), "compile", 512, 512) == whole
    assert step_down(whole, "compile", 512, 512) == LARGE
