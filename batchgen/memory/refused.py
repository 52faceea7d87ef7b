"""Which errors mean that the device or the host refused memory. Works without torch."""

import errno
import re

# The words of torch 2.13's RuntimeErrors, and of the libraries that it calls: the allocators of CUDA, ROCm, XPU and the
# host, cuBLAS, cuDNN 8 and 9, cuSOLVER, cuSPARSE, cuFFT, the C++ library. 'an illegal memory access' is something else.
# So is 'cannot allocate memory in static TLS block', where the library cannot be loaded however much memory is free.
_SIGNS = re.compile(
    "|".join(
        (
            "[Oo]ut of memory",
            "OUT_OF_(DEVICE_|HOST_)?MEMORY",
            "_ALLOC(ATION)?_FAILED",
            # The memory that a library's handle needs was refused.
            "(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_NOT_INITIALIZED",
            # cuDNN tried all its engines, and none of them got its workspace.
            "unable to find an engine",
            # The allocator tried to report who holds the memory, but could not ask.
            r"NVML_SUCCESS == .*CUDACachingAllocator",
            "can't allocate memory",
            "not enough memory",
            "Cannot allocate memory",
            "bad_alloc|bad allocation",
        )
    )
)


def memory_was_refused(error: BaseException) -> bool:
    """Whether `error` means that there was too little memory on the device or on the host."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Rust's message (from safetensors), in an exception of its own type
    said = str(error)
    return "(os error 12)" in said or (isinstance(error, RuntimeError) and _SIGNS.search(said) is not None)
