"""Which errors say that the device or the host refused memory. No torch."""

import errno
import re

# What torch 2.13 says in a RuntimeError, and what it calls: the allocators of CUDA, ROCm, XPU and the host, cuBLAS,
# cuDNN 8 and 9, cuSOLVER, cuSPARSE, cuFFT, the C++ library. 'an illegal memory access' is something else, and so is
# 'cannot allocate memory in static TLS block': that library cannot be loaded however much is free.
_SIGNS = re.compile(
    "|".join(
        (
            "[Oo]ut of memory",
            "OUT_OF_(DEVICE_|HOST_)?MEMORY",
            "_ALLOC(ATION)?_FAILED",
            # The memory that a library's handle needs was refused.
            "(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_NOT_INITIALIZED",
            # cuDNN tried all its engines, and none got its workspace.
            "unable to find an engine",
            # The allocator was about to say who holds the memory, and could not ask.
            r"NVML_SUCCESS == .*CUDACachingAllocator",
            "can't allocate memory",
            "not enough memory",
            "Cannot allocate memory",
            "bad_alloc|bad allocation",
        )
    )
)


def memory_was_refused(error: BaseException) -> bool:
    """Whether `error` says that there was too little memory, of the device or of the host."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Rust's words (safetensors), in an exception of its own kind
    said = str(error)
    return "(os error 12)" in said or (isinstance(error, RuntimeError) and _SIGNS.search(said) is not None)
