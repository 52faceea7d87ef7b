"""Page-locked host memory, from which weights are copied to a device several times faster.

torch rounds each tensor that it pins up to a power of two, and keeps the memory until the process ends. Here weights
are packed into a few flat buffers, which are locked at their real size and unlocked when their owner is gone.
"""

import itertools
import mmap
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, device

# Each tensor in a buffer begins at a multiple of this.
ALIGNED_BYTES = 256
# The size of a buffer: until it is full, its tensors are in memory twice.
_BUFFER_BYTES = 512 << 20
_locked: dict[int, int] = {}  # {address: bytes} of the buffers that are locked now


def locked_bytes() -> int:
    """How many bytes this module has page-locked in this process; what torch pins does not count."""
    return sum(_locked.values())


class Pinned:
    """A flat buffer of host memory, `flat` (uint8), page-locked for a CUDA device if the host allows that.

    It is unlocked when this object is gone. The memory itself stays for as long as a tensor uses it.
    """

    def __init__(self, size_bytes: int, device: "device") -> None:
        import torch

        # It has whole pages of its own, because two locks cannot share a page, and begins where they begin, because
        # torch looks there whether a tensor is pinned.
        pages_bytes = max(1, -(-size_bytes // mmap.PAGESIZE)) * mmap.PAGESIZE
        pages = mmap.mmap(-1, pages_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with torch.inference_mode(False):
            self.flat = torch.frombuffer(pages, dtype=torch.uint8)[:size_bytes]
        self.is_locked = device.type == "cuda" and _lock(self.flat.data_ptr(), pages_bytes)
        if self.is_locked:
            weakref.finalize(self, _unlock, self.flat).atexit = False


def pack(tensors: Iterable["Tensor"], device: "device") -> list[Pinned]:
    """Move the data of these CPU tensors into buffers. If the device is the CPU nothing moves. Strides stay the same.

    The buffers are locked for as long as the caller keeps what is returned.
    """
    if device.type != "cuda":
        return []
    return [_pack(batch, device) for batch in _batches(list(tensors))]


def aligned_bytes(tensor: "Tensor") -> int:
    """How many bytes a tensor takes in a buffer."""
    return -(-tensor.numel() * tensor.element_size() // ALIGNED_BYTES) * ALIGNED_BYTES


def views(flat: "Tensor", tensors: Sequence["Tensor"]) -> list["Tensor"]:
    """Views into a flat buffer, one after the other, with the shapes, strides and types of these tensors."""
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
        # CUDA reports a refusal as its last error until it is read; otherwise the next kernel would be blamed for it.
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")
        return False
    _locked[address] = size_bytes
    return True


def _unlock(flat: Any) -> None:
    # Wait first until copies from it have arrived.
    import torch

    with suppress(RuntimeError):
        torch.cuda.synchronize()
        _cudart().cudaHostUnregister(flat.data_ptr())
    _locked.pop(flat.data_ptr(), None)


def _cudart() -> Any:
    import torch

    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
