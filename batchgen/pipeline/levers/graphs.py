"""CUDA graphs: the kernels of a call are recorded once for its shapes, and then launched together.

A small batch runs a thousand short kernels, and launching them one by one takes the host longer than the device needs.
See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Work = Callable[[], Any]


def cuda_graph(work: Work) -> tuple[Work, Any]:
    """Record what `work` does on the device. Returns what does it again, and what it made, which that overwrites."""
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # once before: what is loaded or compiled at the first call cannot be recorded
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = work()
    return graph.replay, made


class GraphedCall:
    """A call that is recorded at each new shape, with the memory that it works in, and then repeated."""

    def __init__(self, call: Callable[..., Any], record: Callable[[Work], tuple[Work, Any]] = cuda_graph) -> None:
        """`call` takes tensors, and what else it takes is always the same for one shape."""
        self._call, self._record = call, record
        self._recorded: dict[Any, tuple[list[torch.Tensor], Work, Any]] = {}

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the call gives, in tensors of its own."""
        leaves, form = tree_flatten((given, named))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        key = (str(form), *(_kind(leaf) for leaf in leaves))
        if key not in self._recorded:
            self._recorded[key] = self._recording(leaves, form)
        inputs, repeat, made = self._recorded[key]
        for own, tensor in zip(inputs, tensors, strict=True):
            own.copy_(tensor)
        repeat()
        return tree_map(lambda one: one.clone() if isinstance(one, torch.Tensor) else one, made)

    def forget(self) -> None:
        """Drop what was recorded and its memory: it holds the addresses of weights, which may have moved."""
        self._recorded.clear()

    def _recording(self, leaves: Sequence[Any], form: Any) -> tuple[list[torch.Tensor], Work, Any]:
        device = next(leaf.device for leaf in leaves if isinstance(leaf, torch.Tensor))
        owned = [leaf.to(device, copy=True) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        given, named = tree_unflatten(owned, form)
        repeat, made = self._record(lambda: self._call(*given, **named))
        return [one for one in owned if isinstance(one, torch.Tensor)], repeat, made


def _kind(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf
