"""What placements take of the host's memory, by the bytes of the parts. Pure."""

import pytest

from batchgen.machine.host import Room
from batchgen.memory.host_bytes import CUDA_PROCESS_BYTES, Host, Parts, needed_bytes, shortage
from batchgen.placements import PLACEMENTS
from tests.memory.cards import GIB, SDXL

NOTHING = Parts()
ALL = sum(SDXL.parts_bytes)


def taken(placement: str, made: Parts = NOTHING) -> int:
    return needed_bytes(SDXL, placement, made) - CUDA_PROCESS_BYTES


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_waits_in_the_host_counts_and_pages_of_files_do_not(placement: str) -> None:
    waiting = {"resident": 0, "text_offload": SDXL.text_bytes}
    assert taken(placement) == waiting.get(placement, ALL)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_was_made_anew_is_there_until_its_part_is_placed(placement: str) -> None:
    assert taken(placement, Parts(*SDXL.parts_bytes)) == ALL
    # Only the denoiser was made: under text_offload it is still there when the text encoders are packed.
    expected = {"resident": SDXL.unet_bytes, "text_offload": SDXL.text_bytes + SDXL.unet_bytes}
    assert taken(placement, Parts(denoiser=SDXL.unet_bytes)) == expected.get(placement, ALL)


def test_a_host_that_is_not_known_holds_all() -> None:
    assert Host(None).holds(SDXL, "weight_streaming") and Host(None).pins(SDXL, "weight_streaming")


def test_to_hold_and_to_pin_are_two_things() -> None:
    host = Host(Room(needed_bytes(SDXL, "model_offload", Parts()), ALL - 1))
    assert host.holds(SDXL, "model_offload") and not host.pins(SDXL, "model_offload")
    assert not Host(Room(ALL, ALL)).holds(SDXL, "model_offload"), "the process itself takes some, too"


def test_the_line_names_need_room_and_what_helps() -> None:
    room = Room(int(2.5 * GIB), 0)
    assert shortage("loading it", 3 * GIB, room) == (
        "loading it takes at least 3.00 GiB of the host's memory, and there are 2.50 GiB: give the job more host "
        "memory (SLURM: --mem; a container: its limit)"
    )
    assert "2.50 GiB for each of 2 workers" in shortage("it", 3 * GIB, Room(int(2.5 * GIB), 0, 2))
    assert Host(room).lacks(SDXL, "model_offload", by_hand=True).endswith(", or leave memory.policy.placement out")
