"""The choice: what is the fastest that fits, on cards from 2 to 141 GiB, over slow PCIe, on small hosts. No torch."""

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from batchgen.config.schema import PolicyConfig
from batchgen.errors import MemoryNeededError
from batchgen.machine.host import Room
from batchgen.memory.choose import Choice, choose, fits
from batchgen.memory.costs import Task, batch_s, peak_bytes
from batchgen.memory.figures import Figures
from batchgen.memory.host_bytes import Host, Parts, needed_bytes
from batchgen.placements import STEADY
from batchgen.policy import Policy
from tests.builders import POLICY
from tests.memory.cards import GIB, sd15_512, sdxl_1024

SMALL = Task(512, 512, 32, 30, guided=True)
LARGE = Task(1024, 1024, 32, 30, guided=True)
CARDS_GIB = (2, 3, 4, 6, 8, 10, 12, 16, 24, 40, 80, 141)
CONTEXT_GIB = 0.7
NOTHING = Parts()


def chosen(figures: Figures, task: Task = SMALL, card_gib: float = 24, host_gib: float = 64, **fixed: Any) -> Choice:
    room = Room(held_bytes=int((host_gib + 4) * GIB), pinned_bytes=int(host_gib * GIB))
    return choose(figures, task, int((card_gib - CONTEXT_GIB) * GIB), Host(room), PolicyConfig(**fixed), POLICY)


@pytest.mark.parametrize(
    ("figures", "card_gib", "placement"),
    [
        (sd15_512(390, 55e9), 80, "resident"),
        (sd15_512(390, 55e9), 3, "model_offload"),
        (sd15_512(390, 55e9), 2.5, "weight_streaming"),
        (sd15_512(40, 12e9), 12, "resident"),
        (sd15_512(4, 6e9), 4, "resident"),  # slow enough that two rows at once are as good as many
        (sd15_512(4, 6e9), 3, "model_offload"),
        (sd15_512(4, 6e9), 2, "weight_streaming"),
    ],
)
def test_the_winner_on_known_cards(figures: Figures, card_gib: float, placement: str) -> None:
    assert chosen(figures, card_gib=card_gib).option.policy.placement == placement


@pytest.mark.parametrize("card_gib", CARDS_GIB)
@pytest.mark.parametrize(("figures", "task"), [(sd15_512(), SMALL), (sdxl_1024(), LARGE)], ids=["sd15", "sdxl"])
@pytest.mark.parametrize("copied_bytes_per_s", [55e9, 3e9])
def test_what_is_chosen_fits_and_no_more_memory_makes_it_slower(
    figures: Figures, task: Task, card_gib: float, copied_bytes_per_s: float
) -> None:
    figures = replace(figures, copied_bytes_per_s=copied_bytes_per_s)
    found = chosen(figures, task, card_gib)
    assert found.option.peak_bytes <= (card_gib - CONTEXT_GIB) * GIB
    assert found.option.peak_bytes == peak_bytes(figures, found.option.policy, task)
    for larger_gib in CARDS_GIB:
        if larger_gib > card_gib:
            # Of what is nearly as fast the simpler wins, and tiles are avoided.
            assert chosen(figures, task, larger_gib).option.seconds <= 1.08 * found.option.seconds


def test_sd15_in_3_gib_loses_less_than_a_third() -> None:
    whole, short = chosen(sd15_512(), card_gib=80), chosen(sd15_512(), card_gib=3)
    assert whole.option.seconds > 2 / 3 * short.option.seconds


def test_sequential_offload_of_single_images_is_the_mistake_that_it_saves_from() -> None:
    figures = sd15_512()
    guide = Policy(1, 1, 0, "sequential_offload", "fp16", 1)
    assert batch_s(figures, guide, SMALL) > 5 * chosen(figures, card_gib=3).option.seconds


def test_tiles_are_for_what_does_not_fit_whole() -> None:
    assert chosen(sd15_512(), card_gib=4).option.policy.tile_px == 0
    assert 0 < chosen(sdxl_1024(), LARGE, card_gib=3).option.policy.tile_px < 1024


def test_small_tiles_are_not_taken_for_a_little_speed() -> None:
    small, large = 128 * 128, 256 * 256
    figures = replace(sdxl_1024(), decode_s=((small, ((1, 0.95 * small * 1e-7),)), (large, ((1, large * 1e-7),))))
    assert chosen(figures, LARGE, card_gib=2).option.policy.tile_px == 256


def test_many_small_tiles_at_once_where_they_are_faster_than_one_large_one() -> None:
    # As measured on an H200: seconds of SDXL's VAE, 1024x1024
    figures = replace(
        sdxl_1024(),
        decode_s=(
            (256 * 256, ((1, 0.0151), (4, 0.0275), (16, 0.0843))),
            (512 * 512, ((1, 0.0395), (4, 0.0975))),
            (1024 * 1024, ((1, 0.169),)),
        ),
    )
    policy = chosen(figures, replace(LARGE, steps=5), card_gib=4).option.policy
    assert policy.tile_px == 256
    assert policy.decode_chunk > 4


def test_a_host_that_can_pin_little_is_not_asked_to() -> None:
    assert chosen(sdxl_1024(), LARGE, card_gib=8, host_gib=14).option.policy.placement != "resident"
    assert chosen(sdxl_1024(), LARGE, card_gib=12, host_gib=2).option.policy.placement in ("resident", "text_offload")
    # Nothing else fits: weights wait in plain memory, which is better than not at all.
    unpinned = choose(sdxl_1024(), LARGE, int(2.3 * GIB), Host(Room(64 * GIB, 0)), PolicyConfig(), POLICY)
    assert unpinned.option.policy.placement == "weight_streaming"


def on_host(host_gib: float, card_gib: float, made: Parts = NOTHING, workers: int = 1, **fixed: Any) -> Choice:
    host = Host(Room(int(host_gib * GIB), int(host_gib * GIB), workers), made)
    return choose(sdxl_1024(), LARGE, int((card_gib - CONTEXT_GIB) * GIB), host, PolicyConfig(**fixed), POLICY)


@pytest.mark.parametrize("card_gib", CARDS_GIB)
@pytest.mark.parametrize("host_gib", [1.5, 2.6, 4, 7, 7.7, 16])
def test_what_is_chosen_fits_into_the_host_or_is_refused_in_one_line(host_gib: float, card_gib: float) -> None:
    try:
        found = on_host(host_gib, card_gib)
    except MemoryNeededError as error:
        assert len(str(error).splitlines()) == 1
        assert host_gib < 7.7, "all weights and the process itself take 7.62 GiB"
        assert "of the host's memory" in str(error)
        return
    assert found.host_bytes <= host_gib * GIB
    assert found.host_bytes == needed_bytes(sdxl_1024().weights, found.option.policy.placement, Parts())
    against = {option.policy.placement: why for option, why in found.others}
    if host_gib < 7:
        assert against["weight_streaming"] in ("more than this host's memory", "does not fit")


def test_a_host_that_is_too_small_is_told_what_it_needs_and_what_to_do() -> None:
    with pytest.raises(MemoryNeededError) as refused:
        on_host(5.5, card_gib=4, workers=4)
    assert str(refused.value) == (
        "1024x1024 px: with 3.30 GiB of device memory free, the placement weight_streaming takes at least 7.62 GiB of "
        "the host's memory, and there are 5.50 GiB for each of 4 workers: give the job more host memory (SLURM: --mem; "
        "a container: its limit), start fewer workers on this machine, or have 6.8 GiB of device memory free beside "
        "CUDA's context (text offload, micro-batch 1, decode chunk 1, tiles of 512 px)"
    )


def test_a_placement_that_is_fixed_and_that_the_host_cannot_hold_is_refused() -> None:
    assert on_host(7.7, 80, placement="weight_streaming").option.policy.placement == "weight_streaming"
    with pytest.raises(MemoryNeededError, match=r"memory.policy.placement=weight_streaming takes .* leave memory.po"):
        on_host(7.5, 80, placement="weight_streaming")


def test_what_loading_makes_in_the_host_counts_for_the_resident_placement_too() -> None:
    weights = sdxl_1024().weights
    made = Parts(*weights.parts_bytes)
    assert on_host(1.5, 80).option.policy.placement == "resident"
    assert on_host(7.7, 80, made).option.policy.placement == "resident"
    with pytest.raises(MemoryNeededError, match=r"the placement resident takes at least 7\.62 GiB"):
        on_host(7.5, 80, made)


@pytest.mark.parametrize(
    "fixed",
    [
        {"micro_batch": 3},
        {"placement": "group_offload_block"},
        {"placement": "weight_streaming", "stream_buffers": 5},
        {"decode_chunk": 7},
        {"tile_px": 256},
        {"guidance_split": True},
        {"placement": "sequential_offload", "micro_batch": 5, "decode_chunk": 2},
    ],
    ids=str,
)
def test_what_the_user_fixed_stays(fixed: dict[str, Any]) -> None:
    policy = chosen(sd15_512(), card_gib=12, **fixed).option.policy
    assert {name: getattr(policy, name) for name in fixed} == fixed


def test_a_traced_model_stays_in_place() -> None:
    found = choose(sd15_512(), SMALL, 4 * GIB, Host(None), PolicyConfig(), replace(POLICY, traced=True))
    assert found.option.policy.placement in ("resident", "text_offload", "model_offload")


def test_graphs_are_for_weights_that_stay_in_place() -> None:
    for card_gib in (6, 8, 80):
        base = replace(POLICY, compile="graphs")
        found = choose(sd15_512(), SMALL, card_gib * GIB, Host(None), PolicyConfig(), base).option
        assert found.policy.placement in STEADY
        assert fits(sd15_512(), found.policy, SMALL, card_gib * GIB)
    assert not fits(sd15_512(), found.policy, SMALL, 3 * GIB)


def test_what_cannot_fit_is_refused_with_what_it_needs() -> None:
    with pytest.raises(MemoryNeededError, match=r"1024x1024 px: at least 0\.\d\d GiB .* 0\.30 GiB are free"):
        chosen(sdxl_1024(), LARGE, card_gib=CONTEXT_GIB + 0.3)


def test_what_fits_without_a_margin_alone_is_still_taken() -> None:
    figures = sdxl_1024()
    least = chosen(figures, LARGE, card_gib=2).option
    smallest_gib = next(card / 40 for card in range(28, 120) if _fits(figures, card / 40))
    found = chosen(figures, LARGE, card_gib=smallest_gib).option
    assert found.peak_bytes <= least.peak_bytes
    assert found.peak_bytes / GIB == pytest.approx(smallest_gib - CONTEXT_GIB, abs=0.03)


def _fits(figures: Figures, card_gib: float) -> bool:
    try:
        chosen(figures, LARGE, card_gib)
    except MemoryNeededError:
        return False
    return True


def test_reasons_name_what_was_chosen_and_what_it_costs() -> None:
    assert chosen(sd15_512(), card_gib=80).reason.endswith("nothing is faster")
    tight = chosen(sd15_512(), card_gib=2.5)
    assert tight.reason.startswith("weight streaming, 8 buffers, micro-batch ")
    assert "resident" in tight.reason and "% slower than " in tight.reason
    others = {option.policy.placement: against for option, against in tight.others}
    assert others["resident"].endswith("% slower") or others["resident"] == "does not fit"
    assert others["sequential_offload"].endswith("% slower")
    assert len(tight.table()) == len(tight.others)


def test_choosing_takes_milliseconds_and_no_torch() -> None:
    started = time.perf_counter()
    chosen(sd15_512())
    assert time.perf_counter() - started < 0.5
    code = "import sys, tests.memory.cards, batchgen.memory.choose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
