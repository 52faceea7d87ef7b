"""Weight streaming in figures: groups by the names of layers, and a pass by its groups."""

import pytest

from batchgen.memory.streaming_costs import GROUP_BYTES, pack, pass_s, turn

CONV = 3 * 3 * 320 * 320
LAYERS = {
    "conv_out": 9 * 320 * 4,
    "up_blocks.1.resnets.0.conv1": CONV,
    "up_blocks.0.upsamplers.0.conv": CONV,
    "mid_block.resnets.1.conv1": CONV,
    "mid_block.attentions.0.proj_in": CONV,
    "mid_block.resnets.0.conv1": CONV,
    "down_blocks.0.downsamplers.0.conv": CONV,
    "down_blocks.0.resnets.0.time_emb_proj": CONV,
    "down_blocks.0.resnets.0.conv1": CONV,
    "conv_in": 9 * 320 * 4,
}


def test_layers_run_in_the_order_of_their_blocks() -> None:
    ordered = sorted(LAYERS, key=turn)
    assert ordered[0] == "conv_in"
    assert [name.split(".")[0] for name in ordered] == [
        "conv_in", *["down_blocks"] * 3, *["mid_block"] * 3, *["up_blocks"] * 2, "conv_out"
    ]  # fmt: skip
    assert [name for name in ordered if name.startswith("mid")] == [
        "mid_block.resnets.0.conv1",
        "mid_block.attentions.0.proj_in",
        "mid_block.resnets.1.conv1",
    ]


def test_groups_are_as_large_as_a_buffer_at_most_and_hold_everything() -> None:
    many = {f"down_blocks.0.resnets.{place}.conv1": CONV for place in range(100)}
    groups = pack(many, 2, 2, 4096)
    assert sum(size_bytes for size_bytes, _ in groups) == 100 * CONV * 2
    assert max(size_bytes for size_bytes, _ in groups) <= GROUP_BYTES
    assert sum(share for _, share in groups) == pytest.approx(1)
    large = pack({"conv_in": GROUP_BYTES, "conv_out": 1}, 2, 1, 64)
    assert [size_bytes for size_bytes, _ in large] == [2 * GROUP_BYTES, 2]


def test_the_same_layer_computes_a_quarter_where_the_latent_is_half_as_wide() -> None:
    whole = GROUP_BYTES // 2
    names = ("down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv1", "mid_block.resnets.0.conv1")
    (_, first), (_, second), (_, third) = pack(dict.fromkeys(names, whole), 2, 2, 4096)
    assert first == pytest.approx(4 * second)
    assert second == pytest.approx(third)


def test_self_attention_counts_by_the_square_and_texts_by_their_length() -> None:
    size = GROUP_BYTES // 2
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    names = (f"{block}.attn1.to_q", f"{block}.attn1.to_v", f"{block}.attn2.to_k")
    by_share = sorted(share for _, share in pack(dict.fromkeys(names, size), 2, 1, 4096))
    assert by_share[2] > 2 * by_share[1] > 100 * by_share[0] > 0


@pytest.mark.parametrize("buffers", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("compute_s", [0.001, 0.1, 10.0])
def test_a_pass_takes_the_longer_of_both_at_least_and_their_sum_at_most(buffers: int, compute_s: float) -> None:
    groups = tuple((1e9, share) for share in (0.4, 0.1, 0.05, 0.05, 0.4))
    copy_s = 5e9 / 50e9
    seconds = pass_s(groups, compute_s, 50e9, buffers)
    assert max(compute_s, copy_s) <= seconds * 1.000001 <= 1.00001 * (compute_s + copy_s)
    if buffers == 1:
        assert seconds == pytest.approx(compute_s + copy_s)
    assert seconds >= pass_s(groups, compute_s, 50e9, buffers + 1)


def test_more_buffers_fetch_the_deep_layers_while_the_shallow_ones_compute() -> None:
    groups = ((1e9, 0.5), *[(1e9, 0.01)] * 10, (1e9, 0.4))
    even = pass_s(groups, 12 / 50, 50e9, 100)
    assert even == pytest.approx(12 / 50, rel=0.1)
    assert pass_s(groups, 12 / 50, 50e9, 2) > 1.5 * even
