"""Page-locked memory: packed as it is, counted as it is, and let go with its owner. CUDA is a stand-in here."""

import gc
import mmap
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from batchgen.machine import pinned
from batchgen.machine.pinned import Pinned, locked_bytes, pack
from batchgen.models.families import FAMILIES
from batchgen.pipeline.placement import Placement, Staged

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Cudart:
    """What of CUDA's runtime locks pages; notes what is locked."""

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}
        self.refuses = False

    def cudaHostRegister(self, address: int, size_bytes: int, flags: int) -> int:
        assert (address % mmap.PAGESIZE, size_bytes % mmap.PAGESIZE, flags) == (0, 0, 1)
        assert not any(address < end and start < address + size_bytes for start, end in self._ranges())
        if self.refuses:
            return 2
        self.locked[address] = size_bytes
        return 0

    def _ranges(self) -> list[tuple[int, int]]:
        return [(start, start + size_bytes) for start, size_bytes in self.locked.items()]

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> Cudart:
    made = Cudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: made)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return made


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7), nn.Linear(33, 65), nn.Linear(1, 1).half())
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def test_packed_weights_are_the_same_and_take_what_they_have(cudart: Cudart) -> None:
    module, expected = net(), {name: tensor.clone() for name, tensor in net().state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in module.state_dict().items()}
    tensors = [*module.parameters(), *module.buffers()]
    owners = pack(tensors, CUDA)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, expected[name])
        assert tensor.stride() == strides[name]
        assert tensor.untyped_storage().data_ptr() in cudart.locked, "where torch looks whether a tensor is pinned"
    own_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    rounding_bytes = len(tensors) * pinned.ALIGNED_BYTES + len(owners) * mmap.PAGESIZE
    assert own_bytes <= locked_bytes() == sum(cudart.locked.values()) <= own_bytes + rounding_bytes


def test_what_one_buffer_does_not_hold_goes_into_others(cudart: Cudart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "_BUFFER_BYTES", 1024)
    tensors = [torch.full((count,), float(count)) for count in (10, 300, 5, 400, 64, 64, 64, 64, 0)]
    owners = pack(tensors, CUDA)
    assert len(owners) == 5
    assert all(tensor.tolist() == [tensor.numel()] * tensor.numel() for tensor in tensors)


def test_it_is_unlocked_when_its_owner_is_gone_and_the_tensors_live_on(cudart: Cudart) -> None:
    tensor = torch.arange(1000.0)
    owners = pack([tensor], CUDA)
    assert cudart.locked and locked_bytes()
    owners.clear()
    assert not cudart.locked
    assert locked_bytes() == 0
    assert torch.equal(tensor, torch.arange(1000.0))


def test_memory_that_the_host_does_not_lock_is_plain_memory(cudart: Cudart, monkeypatch: pytest.MonkeyPatch) -> None:
    cudart.refuses = True

    def blamed(*_: Any, **__: Any) -> None:
        cudart.refuses = False
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "zeros", blamed)
    tensor = torch.arange(1000.0)
    (owner,) = pack([tensor], CUDA)
    assert not owner.is_locked
    assert not cudart.refuses, "the error is asked for, so that no kernel is blamed"
    assert locked_bytes() == 0
    assert torch.equal(tensor, torch.arange(1000.0))


def test_nothing_moves_and_nothing_is_locked_for_the_cpu(cudart: Cudart) -> None:
    tensor = torch.arange(10.0)
    before = tensor.data_ptr()
    assert pack([tensor], CPU) == []
    assert tensor.data_ptr() == before
    assert not Pinned(100, CPU).is_locked
    assert not cudart.locked


def test_weights_that_wait_are_locked_for_as_long_as_they_wait(cudart: Cudart) -> None:
    module = net()
    staged = Staged(module, CUDA)
    assert locked_bytes() == sum(cudart.locked.values()) > 0
    assert all(host.untyped_storage().data_ptr() in cudart.locked for host in staged._host)
    del staged
    gc.collect()
    assert not cudart.locked


class Pipe:
    """What a placement sees of a pipeline."""

    def __init__(self) -> None:
        self.text_encoder, self.unet, self.vae = net(), net(), net()


@pytest.mark.parametrize("name", ["sequential_offload", "group_offload_leaf", "group_offload_block"])
def test_hooks_bring_in_from_locked_memory_and_it_goes_with_the_placement(
    cudart: Cudart, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only what is locked: the hooks themselves want the device.
    for hook in ("_bring_in_by_layers", "_group"):
        monkeypatch.setattr(f"batchgen.pipeline.placement.{hook}", lambda *_: None)
    pipe = Pipe()
    placement: Any = Placement(pipe, FAMILIES["StableDiffusionPipeline"], name, CUDA)
    own_bytes = sum(one.numel() * one.element_size() for one in [*pipe.unet.parameters(), *pipe.unet.buffers()])
    assert locked_bytes() >= 3 * own_bytes
    del placement, pipe
    gc.collect()
    assert not cudart.locked
