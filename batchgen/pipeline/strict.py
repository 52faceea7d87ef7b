"""determinism=strict: in this process each shape always runs with the same kernels."""

import os

import torch


def pin_kernels() -> None:
    """Make torch use only deterministic kernels and never choose among them by timing. Call it before any work.

    If torch has no deterministic kernel, it says so in the worker's log and goes on. Source:
    https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
