"""CUDA graphs: the kernels of a call are recorded once for its shapes, and then launched together.

A small batch runs a thousand short kernels, and launching them one by one takes the host longer than the device needs.
See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from batchgen.errors import in_one_line
from batchgen.memory.refused import memory_was_refused

Work = Callable[[], Any]

# How many recordings one call may have. A call that is given another number at each step would never have enough.
MOST_RECORDINGS = 16
# Values of these kinds are part of a recording. Whatever else a call is given may change without being another.
_FIXED = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Recorder:
    """Records what a GPU does in a call. All recordings are made on one stream, and work in one pool of memory.

    Sharing the pool is right because no two recordings are in flight together: all are launched in one stream, what one
    is given is copied to it at each launch, and what it made is copied before the next launch.
    """

    def __init__(self) -> None:
        self._side: Any = None
        self._pool: Any = None
        self._broken: list[Any] = []

    def __call__(self, work: Work) -> tuple[Work, Any]:
        """Record what `work` does on the device. Returns what does it again, and what it made, which that overwrites.

        Raises what `work` and torch raise. The current stream is then the one that it was before.
        """
        before = torch.cuda.current_stream()
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            self._side.wait_stream(before)
            with torch.cuda.stream(self._side):  # once before: what the first call loads or compiles cannot be recorded
                work()
            before.wait_stream(self._side)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
                made = work()
        except BaseException:
            torch.cuda.set_stream(before)
            self._leave(graph)
            raise
        return graph.replay, made

    def forget(self) -> None:
        """Let the pool go, after all recordings have gone. A pool without recordings cannot be used again."""
        self._pool = None

    def _leave(self, graph: Any) -> None:
        # Where torch could not end a recording, its allocator is still in it: no cached memory could be given back, and
        # the allocator would ask a graph that is gone. An error says that the recording was ended, or never began.
        device, pool = torch.cuda.current_device(), self._pool
        self._pool = None
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(device, pool)
            self._broken.append(graph)
            torch._C._cuda_releasePool(device, pool)


class GraphedCall:
    """A call that is recorded for each new shape, and then repeated. What cannot be recorded is called as it is."""

    def __init__(self, call: Callable[..., Any], record: Recorder, gave_up: Callable[[str], None]) -> None:
        """`gave_up` is told why, if a recording fails; then no more are made. Errors of refused memory are raised."""
        self._call, self._record, self._gave_up = call, record, gave_up
        self._recorded: dict[Any, tuple[list[torch.Tensor], Work, Any]] = {}
        self._has_failed = False

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the call gives, in tensors of its own."""
        leaves, form = tree_flatten((given, named))
        key = (str(form), *map(_kind, leaves))
        if not self._has(key, leaves, form):
            return self._call(*given, **named)
        inputs, repeat, made = self._recorded[key]
        for own, tensor in zip(inputs, _tensors(leaves), strict=True):
            own.copy_(tensor)
        repeat()
        return tree_map(lambda one: one.clone() if isinstance(one, torch.Tensor) else one, made)

    def forget(self) -> None:
        """Drop what was recorded: it holds the addresses of weights, which may have moved."""
        self._recorded.clear()

    def _has(self, key: Any, leaves: Sequence[Any], form: Any) -> bool:
        # Whether there is a recording of it, which is made now if it may be
        if key in self._recorded:
            return True
        is_fixed = all(isinstance(leaf, (torch.Tensor, *_FIXED)) for leaf in leaves)
        if self._has_failed or not is_fixed or len(self._recorded) >= MOST_RECORDINGS:
            return False
        try:
            self._recorded[key] = self._recording(leaves, form)
            return True
        except Exception as error:  # what a GPU, a driver or a call cannot do shows itself in many ways
            if (refused := _refused(error)) is not None:
                raise refused from None
            why = in_one_line(error)
        self._has_failed = True
        self._gave_up(why)
        return False

    def _recording(self, leaves: Sequence[Any], form: Any) -> tuple[list[torch.Tensor], Work, Any]:
        # All that is given is copied to the device, because a recording cannot read the host's memory.
        device = _tensors(leaves)[0].device
        owned = [leaf.to(device, copy=True) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        given, named = tree_unflatten(owned, form)
        repeat, made = self._record(lambda: self._call(*given, **named))
        return _tensors(owned), repeat, made


class Places:
    """Where the weights and buffers of a model are."""

    def __init__(self, model: Any) -> None:
        held = [one for module in model.modules() for one in (module._parameters, module._buffers)]
        self._held = [(tensors, name) for tensors in held for name, one in tensors.items() if one is not None]

    def now(self) -> list[int]:
        """Their addresses."""
        return [tensors[name].data_ptr() for tensors, name in self._held]


def _tensors(leaves: Sequence[Any]) -> list[torch.Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _kind(leaf: Any) -> Any:
    # What makes a recording another one. Kernels are chosen by strides; those of a single place do not matter. Of
    # numbers the type and the digits count: 1, 1.0 and True are equal, and so are 0.0 and -0.0.
    if not isinstance(leaf, torch.Tensor):
        return type(leaf), repr(leaf) if isinstance(leaf, _FIXED) else None
    strides = tuple(stride for stride, size in zip(leaf.stride(), leaf.shape, strict=True) if size > 1)
    return tuple(leaf.shape), strides, leaf.dtype, leaf.device


def _refused(error: BaseException) -> BaseException | None:
    # The error that memory was refused, if it led to this one: ending a recording that went wrong may raise another
    found: BaseException | None = error
    while found is not None and not memory_was_refused(found):
        found = found.__cause__ or found.__context__
    return found
