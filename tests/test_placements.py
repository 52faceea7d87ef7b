"""The table of placements, from which what they hold, pin and move follows."""

import pytest

from batchgen.placements import PLACEMENTS, UNHOOKED, place_of


def test_the_placements_go_from_the_fastest_to_the_smallest() -> None:
    assert [place_of(name) for name in PLACEMENTS] == list(range(len(PLACEMENTS)))
    assert place_of("resident") < place_of("weight_streaming") < place_of("sequential_offload")


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_denoisers_weights_stay_in_place_or_hooks_move_them(name: str) -> None:
    assert (name in UNHOOKED) == (PLACEMENTS[name].denoise in ("resident", "staged"))
    assert PLACEMENTS[name].decode in ("resident", "staged"), "the VAE is never brought in piece by piece"
