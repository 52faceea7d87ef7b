"""Page-locked memory of the host, from which weights cross to a device several times faster.

torch rounds what it pins up to a power of two, tensor by tensor, and keeps it until the process ends. Here weights are
packed into few flat buffers that are locked as they are, and unlocked when their owner is gone.
"""

import itertools
import mmap
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, device

# Each tensor begins at a multiple of this.
ALIGNED_BYTES = 256
# Weights are packed by so much: until a buffer is full, its tensors are in memory twice.
_BUFFER_BYTES = 512 << 20
_locked: dict[int, int] = {}  # {address: bytes} of the buffers that are locked now


def locked_bytes() -> int:
    """How much this process has page-locked here; what torch pins is not in it."""
    return sum(_locked.values())


class Pinned:
    """A flat buffer of host memory, page-locked for a CUDA device where the host grants it: `flat`, of uint8.

    It is unlocked when this object is gone; the memory itself stays for as long as a tensor uses it.
    """

    def __init__(self, size_bytes: int, device: "device") -> None:
        import torch

        # Pages of its own, since two locks cannot share one; and from their start, where torch looks whether a tensor
        # is pinned.
        pages_bytes = max(1, -(-size_bytes // mmap.PAGESIZE)) * mmap.PAGESIZE
        pages = mmap.mmap(-1, pages_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with torch.inference_mode(False):
            self.flat = torch.frombuffer(pages, dtype=torch.uint8)[:size_bytes]
        self.is_locked = device.type == "cuda" and _lock(self.flat.data_ptr(), pages_bytes)
        if self.is_locked:
            weakref.finalize(self, _unlock, self.flat).atexit = False


def pack(tensors: Iterable["Tensor"], device: "device") -> list[Pinned]:
    """Move the data of these CPU tensors into buffers; on the CPU nothing moves. Strides stay as they are.

    They are locked for as long as the caller keeps what is returned.
    """
    if device.type != "cuda":
        return []
    return [_pack(batch, device) for batch in _batches(list(tensors))]


def aligned_bytes(tensor: "Tensor") -> int:
    """What a tensor takes in a buffer."""
    return -(-tensor.numel() * tensor.element_size() // ALIGNED_BYTES) * ALIGNED_BYTES


def views(flat: "Tensor", tensors: Sequence["Tensor"]) -> list["Tensor"]:
    """The places of tensors of these shapes, strides and types in a flat buffer, one after the other."""
    starts = itertools.accumulate((aligned_bytes(one) for one in tensors), initial=0)
    return [
        flat[start : start + one.numel() * one.element_size()].view(one.dtype).as_strided(one.size(), one.stride())
        for start, one in zip(starts, tensors, strict=False)
    ]


def _batches(tensors: list["Tensor"]) -> list[list["Tensor"]]:
    batches: list[list[Tensor]] = []
    room_bytes = 0
    for tensor in tensors:
        if aligned_bytes(tensor) > room_bytes:
            batches.append([])
            room_bytes = _BUFFER_BYTES
        batches[-1].append(tensor)
        room_bytes -= aligned_bytes(tensor)
    return batches


def _pack(tensors: list["Tensor"], device: "device") -> Pinned:
    buffer = Pinned(sum(aligned_bytes(tensor) for tensor in tensors), device)
    for tensor, place in zip(tensors, views(buffer.flat, [tensor.data for tensor in tensors]), strict=True):
        place.copy_(tensor.data)
        tensor.data = place
    return buffer


def _lock(address: int, size_bytes: int) -> bool:
    import torch

    portable = 1  # cudaHostRegisterPortable: for every context
    if int(_cudart().cudaHostRegister(address, size_bytes, portable)) != 0:
        # A refusal stays CUDA's last error until somebody asks: the next kernel would be blamed for it.
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")
        return False
    _locked[address] = size_bytes
    return True


def _unlock(flat: Any) -> None:
    # What is on its way from it arrives first.
    import torch

    with suppress(RuntimeError):
        torch.cuda.synchronize()
        _cudart().cudaHostUnregister(flat.data_ptr())
    _locked.pop(flat.data_ptr(), None)


def _cudart() -> Any:
    import torch

    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
