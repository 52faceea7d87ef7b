"""Which errors say that memory was refused, in the words of torch and of what it calls; which only sound like it."""

import errno

import pytest

from batchgen.memory.refused import memory_was_refused

ASSERTED = 'INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/{}":983, please report a bug to PyTorch.'


class SafetensorError(Exception):
    """As safetensors has it: of no kind that says anything."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        SafetensorError("Error while deserializing header: I/O error: Cannot allocate memory (os error 12)"),
        *map(
            RuntimeError,
            [
                "CUDA out of memory. Tried to allocate 20.00 MiB",
                "HIP out of memory. Tried to allocate 20.00 MiB",
                "CUDA error: out of memory",
                "CUDA driver error: out of memory",
                "Triton Error [CUDA]: out of memory",
                "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
                "GET was unable to find an engine to execute this computation",
                "FIND was unable to find an engine to execute this computation",
                "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
                "cuFFT error: CUFFT_ALLOC_FAILED",
                f"NVML_SUCCESS == r {ASSERTED.format('CUDACachingAllocator.cpp')}",
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
                "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried",
                "unable to mmap 1234 bytes from file </x/model.safetensors>: Cannot allocate memory (12)",
                "std::bad_alloc",
            ],
        ),
    ],
)
def test_memory_was_refused(error: Exception) -> None:
    assert memory_was_refused(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("libgomp-d22c30c5.so.1: cannot allocate memory in static TLS block"),
        *map(
            RuntimeError,
            [
                "CUDA error: an illegal memory access was encountered",
                "CUDA error: device-side assert triggered",
                "CUDA error: all CUDA-capable devices are busy or unavailable",
                "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
                "cuDNN error: CUDNN_STATUS_BAD_PARAM",
                f"NVML_SUCCESS == DriverAPI::get()->nvmlInit_v2_() {ASSERTED.format('PeerToPeerAccess.cpp')}",
                "Failed to import x: libgomp.so.1: cannot allocate memory in static TLS block",
                "shape mismatch",
            ],
        ),
    ],
)
def test_these_are_other_troubles(error: Exception) -> None:
    assert not memory_was_refused(error)
