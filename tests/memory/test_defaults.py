"""The policy: rows by size, what the user fixed stays, and what was frozen first holds for all."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.schema import PolicyConfig, SpeedConfig
from batchgen.errors import BrokenRunError, ConfigError
from batchgen.memory.defaults import default_policy, resolve_dtype
from batchgen.memory.policies import freeze, read_policy
from batchgen.policy import pad, padded_rows, spans
from tests.builders import POLICY

SPEED = SpeedConfig()


@pytest.mark.parametrize(
    ("rows", "micro_batch", "padded"),
    [(1, 8, 1), (2, 8, 2), (3, 8, 4), (5, 8, 8), (8, 8, 8), (5, 6, 6), (17, 32, 32), (33, 64, 64), (1, 1, 1)],
)
def test_rows_are_padded_to_few_sizes_and_never_beyond_the_micro_batch(
    rows: int, micro_batch: int, padded: int
) -> None:
    assert padded_rows(rows, micro_batch) == padded


@pytest.mark.parametrize("micro_batch", [1, 3, 6, 8, 24, 32, 40])
def test_padding_always_has_room_for_the_rows(micro_batch: int) -> None:
    for rows in range(1, micro_batch + 1):
        assert rows <= padded_rows(rows, micro_batch) <= micro_batch


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


TITAN_RTX, P100, GTX_1080, A100 = (7, 5), (6, 0), (6, 1), (8, 0)


@pytest.mark.parametrize(
    ("dtype", "capability", "resolved"),
    [
        ("auto", None, "fp32"), ("auto", A100, "fp16"), ("auto", TITAN_RTX, "fp16"), ("auto", P100, "fp16"),
        ("auto", GTX_1080, "fp32"), ("bf16", None, "bf16"), ("bf16", A100, "bf16"), ("fp32", A100, "fp32"),
        ("fp16", GTX_1080, "fp16"),
    ],
)  # fmt: skip
def test_the_dtype_is_one_that_the_device_is_fast_in_unless_named(
    dtype: str, capability: tuple[int, int] | None, resolved: str
) -> None:
    assert resolve_dtype(dtype, capability) == resolved


@pytest.mark.parametrize("capability", [TITAN_RTX, P100])
def test_bf16_is_refused_where_it_would_be_emulated(capability: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="use fp16"):
        resolve_dtype("bf16", capability)


def test_the_policy_that_was_frozen_first_holds(tmp_path: Path) -> None:
    path = tmp_path / "cpu-64x64.json"
    later = default_policy(PolicyConfig(micro_batch=9), SPEED, 64, 64, "fp32", 1)
    assert freeze(path, lambda: POLICY) == POLICY
    assert freeze(path, lambda: later) == POLICY


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"micro_batch": 1, "unknown": 2}'])
def test_a_damaged_frozen_policy_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cpu-64x64.json"
    path.write_text(content)
    with pytest.raises(BrokenRunError, match=r"cpu-64x64\.json does not hold a policy"):
        freeze(path, lambda: POLICY)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("field", "value"),
    [("micro_batch", 0), ("micro_batch", "8"), ("decode_chunk", None), ("tile_px", -8), ("threads", True),
     ("placement", "somewhere")],
)  # fmt: skip
def test_a_frozen_policy_that_no_row_could_be_made_by_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "cpu-64x64.json"
    path.write_text(json.dumps(asdict(POLICY) | {field: value}))
    with pytest.raises(BrokenRunError, match=f"does not hold a policy.*{field} is"):
        read_policy(path)


@pytest.mark.parametrize(
    ("rows", "size", "pieces"), [(0, 4, []), (3, 4, [[0, 1, 2]]), (5, 2, [[0, 1], [2, 3], [4]]), (2, 2, [[0, 1]])]
)
def test_spans_cover_every_row_once(rows: int, size: int, pieces: list[list[int]]) -> None:
    assert [list(span) for span in spans(rows, size)] == pieces


@pytest.mark.parametrize(("target", "padded"), [(2, [3, 5]), (4, [3, 5, 5, 5])])
def test_pad_repeats_the_last_row(target: int, padded: list[int]) -> None:
    assert pad([3, 5], target) == padded
