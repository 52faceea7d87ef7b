"""The default policy: rows by the size of the image, and what the user fixed stays."""

from typing import Any

import pytest

from batchgen.config.schema import PolicyConfig, SpeedConfig
from batchgen.memory.defaults import default_policy

SPEED = SpeedConfig()


def test_larger_images_run_in_smaller_batches() -> None:
    sizes = [
        default_policy(PolicyConfig(), SPEED, edge, edge, "fp16", 8).micro_batch for edge in (64, 256, 512, 1024, 4096)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0] > sizes[2] > sizes[3], sizes[-1]) == (True, 1)


@pytest.mark.parametrize(("edge_px", "tiled"), [(512, False), (1024, False), (1032, True), (4096, True)])
def test_large_images_alone_are_tiled(edge_px: int, tiled: bool) -> None:
    assert (default_policy(PolicyConfig(), SPEED, edge_px, edge_px, "fp16", 8).tile_px > 0) == tiled


@pytest.mark.parametrize("edge_px", [64, 4096])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("micro_batch", 5),
        ("decode_chunk", 3),
        ("tile_px", 0),
        ("tile_px", 256),
        ("threads", 7),
        ("placement", "model_offload"),
        ("guidance_split", True),
        ("stream_buffers", 5),
    ],
)
def test_what_the_user_fixed_stays(edge_px: int, field: str, value: object) -> None:
    fixed: dict[str, Any] = {field: value}
    policy = default_policy(PolicyConfig(**fixed), SPEED, edge_px, edge_px, "bf16", 2)
    assert getattr(policy, field) == value
    assert policy.dtype == "bf16"


@pytest.mark.parametrize(("cpu_count", "threads"), [(1, 1), (2, 2), (64, 4)])
def test_threads_are_few_enough_to_be_had_on_the_next_machine(cpu_count: int, threads: int) -> None:
    assert default_policy(PolicyConfig(), SPEED, 64, 64, "fp32", cpu_count).threads == threads


@pytest.mark.parametrize("field", ["channels_last", "traced"])
def test_how_the_model_computes_is_part_of_the_policy(field: str) -> None:
    wanted: dict[str, Any] = {field: True, "attention": "flash"}
    policy = default_policy(PolicyConfig(), SpeedConfig(**wanted), 64, 64, "fp32", 1)
    assert getattr(policy, field)
    assert policy.attention == "flash"
