"""What dtype `auto` means on a device."""

import pytest

from batchgen.errors import ConfigError
from batchgen.machine.dtype import resolve_dtype

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


@pytest.mark.parametrize(
    ("capability", "resolved"), [(None, "fp32"), ((6, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_what_overflows_in_fp16_has_bf16_or_fp32(capability: tuple[int, int] | None, resolved: str) -> None:
    assert resolve_dtype("auto", capability, "bf16") == resolved
