"""What dtype `auto` means on a device. No torch."""

from batchgen.errors import ConfigError

# Bytes of one number.
VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_FIRST_FAST_IN_FP16 = (7, 0)
_FIRST_WITH_BF16 = (8, 0)


def resolve_dtype(dtype: str, capability: tuple[int, int] | None, half: str = "fp16") -> str:
    """What 'auto' means on a GPU of this compute capability (None: the CPU); any other dtype is returned as it is.

    auto is `half`, the dtype of 16 bits that suits the model, where the GPU is fast in it: in bf16 from 8.0 on, in fp16
    from 7.0 (Volta) on, and on 6.0. On older GPUs and on the CPU it is fp32.
    bf16 came with 8.0 (Ampere), and torch emulates it slowly on older GPUs; asking for it there raises ConfigError.
    """
    if dtype == "bf16" and capability is not None and capability < _FIRST_WITH_BF16:
        raise ConfigError("model.dtype=bf16: this GPU does not support bf16; use fp16 or auto")
    if dtype != "auto":
        return dtype
    if half == "bf16":
        return half if capability is not None and capability >= _FIRST_WITH_BF16 else "fp32"
    fast = capability is not None and (capability >= _FIRST_FAST_IN_FP16 or capability == (6, 0))
    return "fp16" if fast else "fp32"
