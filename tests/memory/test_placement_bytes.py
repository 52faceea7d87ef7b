"""What a placement holds on the device and keeps page-locked."""

from batchgen.memory.placement_bytes import held_bytes, pinned_bytes
from batchgen.placements import PLACEMENTS
from tests.memory.cards import SD15


def test_what_a_placement_holds_and_pins() -> None:
    held = [max(held_bytes(SD15, placement)) for placement in PLACEMENTS]
    assert held[0] == max(held)
    assert held[-1] == min(held)
    assert (
        pinned_bytes(SD15, "resident") == 0 < pinned_bytes(SD15, "text_offload") < pinned_bytes(SD15, "model_offload")
    )
