"""Weight streaming: a module's weights are copied to the device group by group, ahead of their use.

Group offload in diffusers 0.42 has one group on its way at a time, and the host waits for each; its leaf level makes a
copy for every tensor. Here the layers are packed, in the order in which they run, into flat pinned buffers of about
64 MiB. Each is copied at once into a buffer on the device, and the device's buffers are used in turn. Copies run on a
stream of their own; events order them, and the host never waits. The order is circular: the first groups of the next
step are copied while the last layers of this step compute. (musubi-tuner's and nunchaku's offloaders also use double
buffering with events.)
"""

from collections import deque
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from batchgen.machine.pinned import Pinned, aligned_bytes, views
from batchgen.memory.streaming_costs import GROUP_BYTES
from batchgen.policy import STREAM_BUFFERS


class Streamer:
    """Streams one module's weights. Its first pass shows the order of layers; in it each is copied when it is called.

    `leave` frees the device's buffers, and the next pass allocates them again. A layer's bits are the same wherever
    they are, so images don't change.
    """

    def __init__(self, module: nn.Module, device: torch.device, group_bytes: int = GROUP_BYTES) -> None:
        self._device, self._group_bytes = device, group_bytes
        # SDXL's pipeline sends the inputs of its text encoders to where their weights are, which is the host.
        module.register_forward_pre_hook(lambda _, *given: send_to_device(given, device), with_kwargs=True)
        self._order: list[_Layer] = []
        self._groups: list[_Group] = []
        self._layers = _layers(module, device)
        for layer in self._layers:
            layer.module.register_forward_pre_hook(self._before(layer))
            layer.module.register_forward_hook(self._after(layer))
        module.register_forward_hook(lambda *_: self._pack())
        self._turns = _Turns(device, self._groups)

    def use_buffers(self, count: int) -> None:
        """From now on have `count` groups on the device at once: one that computes and others on their way."""
        if count != self._turns.buffers:
            self._turns.end()
            self._turns.buffers = count

    def enter(self) -> None:
        """Do nothing, because the first layer brings its group in."""

    def leave(self) -> None:
        """Free what is on the device."""
        self._turns.end()

    def _before(self, layer: "_Layer") -> Any:
        def bring_in(*_: Any) -> None:
            if layer.group is not None:
                self._turns.use(layer.group)
            else:
                self._order.append(layer)
                with torch.inference_mode(False):  # see Staged
                    layer.point_at([host.to(self._device) for host in layer.host])

        return bring_in

    def _after(self, layer: "_Layer") -> Any:
        def let_go(*_: Any) -> None:
            if layer.group is None:
                layer.point_at(layer.host)

        return let_go

    def _pack(self) -> None:
        # After the first pass, pack its layers into groups in their order.
        if self._groups or not self._order:
            return
        with torch.inference_mode(False):  # tensors made here outlive it
            batch: list[_Layer] = []
            for layer in dict.fromkeys(self._order):
                if batch and sum(one.size_bytes for one in batch) + layer.size_bytes > self._group_bytes:
                    self._groups.append(_Group(len(self._groups), batch, self._device))
                    batch = []
                batch.append(layer)
            self._groups.append(_Group(len(self._groups), batch, self._device))
        self._order.clear()


class _Layer:
    """A module that has weights but no children, with its tensors and where they are in host memory."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        self.host = [tensor.data for tensor in self._tensors]
        self.size_bytes = sum(aligned_bytes(host) for host in self.host)
        self.group: int | None = None

    def point_at(self, places: list[Tensor]) -> None:
        """Make the module use these tensors' data."""
        for tensor, place in zip(self._tensors, places, strict=True):
            tensor.data = place


class _Group:
    """Layers that are copied together, from one flat buffer in host memory, which is pinned if the host allows it."""

    def __init__(self, number: int, layers: list[_Layer], device: torch.device) -> None:
        self.layers = layers
        self.size_bytes = sum(layer.size_bytes for layer in layers)
        self._pinned = Pinned(self.size_bytes, device)
        self.flat = self._pinned.flat
        for layer, places in zip(layers, self.views(self.flat), strict=True):
            for place, host in zip(places, layer.host, strict=True):
                place.copy_(host)
            layer.host = places
            layer.point_at(places)
            layer.group = number

    def views(self, flat: Tensor) -> list[list[Tensor]]:
        """Each layer's tensors as views into `flat`, with the same strides as before (channels_last stays)."""
        found, start = [], 0
        for layer in self.layers:
            found.append(views(flat[start : start + layer.size_bytes], layer.host))
            start += layer.size_bytes
        return found


class _Turns:
    """The device's buffers: which group is in each, which may be written again, and what is on its way."""

    def __init__(self, device: torch.device, groups: list[_Group]) -> None:
        self._device, self._groups = device, groups
        self.buffers = STREAM_BUFFERS[0]
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._coming: deque[_Loan] = deque()
        self._current: _Loan | None = None
        self._free: list[tuple[Tensor, Any]] = []  # each with the event after which it may be written

    def use(self, number: int) -> None:
        """Make this group's layers ready for the device's next work, and send for the ones after it."""
        if self._current is not None and self._current.number == number:
            return
        if self._coming and self._coming[0].number != number:
            self.end()  # the pass before was interrupted, so start again
        self._let_go()
        if not self._coming:
            self._send(number)
        while len(self._coming) < min(self.buffers, len(self._groups)):
            self._send((self._coming[-1].number + 1) % len(self._groups))
        self._current = self._coming.popleft()
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_event(self._current.ready)
        group = self._groups[number]
        with torch.inference_mode(False):  # see Staged
            for layer, places in zip(group.layers, group.views(self._current.buffer), strict=True):
                layer.point_at(places)

    def end(self) -> None:
        """Free all buffers. Copies on their way arrive before the memory is used for anything else."""
        self._let_go()
        if self._copies is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._copies)
        self._coming.clear()
        self._free.clear()

    def _let_go(self) -> None:
        if self._current is None:
            return
        for layer in self._groups[self._current.number].layers:
            layer.point_at(layer.host)
        self._free.append((self._current.buffer, self._event_on_the_device()))
        self._current = None

    def _send(self, number: int) -> None:
        buffer, used = self._free.pop(0) if self._free else self._new_buffer()
        flat = self._groups[number].flat
        ready = None
        if self._copies is None:
            buffer[: len(flat)].copy_(flat)
        else:
            self._copies.wait_event(used)
            with torch.cuda.stream(self._copies):
                buffer[: len(flat)].copy_(flat, non_blocking=True)
                ready = self._copies.record_event()
        self._coming.append(_Loan(number, buffer, ready))

    def _new_buffer(self) -> tuple[Tensor, Any]:
        with torch.inference_mode(False):
            size_bytes = max(group.size_bytes for group in self._groups)
            buffer = torch.empty(size_bytes, dtype=torch.uint8, device=self._device)
        return buffer, self._event_on_the_device()  # until now its memory may have been used for something else

    def _event_on_the_device(self) -> Any:
        return torch.cuda.current_stream(self._device).record_event() if self._copies is not None else None


class _Loan:
    """A buffer that holds a group, or will once the event `ready` has happened."""

    def __init__(self, number: int, buffer: Tensor, ready: Any) -> None:
        self.number, self.buffer, self.ready = number, buffer, ready


def _layers(module: nn.Module, device: torch.device) -> list[_Layer]:
    # Tensors that two layers share, or that a module with children holds, are small and stay on the device.
    leaves = [one for one in module.modules() if not list(one.children())]
    seen: dict[int, int] = {}
    for leaf in leaves:
        for tensor in (*leaf.parameters(), *leaf.buffers()):
            seen[id(tensor)] = seen.get(id(tensor), 0) + 1
    found = []
    for leaf in leaves:
        own = [*leaf.parameters(), *leaf.buffers()]
        if own and all(seen[id(tensor)] == 1 for tensor in own):
            found.append(_Layer(leaf))
            for tensor in own:
                seen.pop(id(tensor))
    streamed = {id(tensor) for layer in found for tensor in (*layer.module.parameters(), *layer.module.buffers())}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in streamed:
            tensor.data = tensor.data.to(device)
    return found
