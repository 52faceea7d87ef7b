"""Guidance with a scale for each row, in the ways in which diffusers' pipelines take a scale."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class RowGuidance:
    """A guidance scale for each row, used where diffusers' pipelines expect one number.

    The pipelines ask `scale > 1` and compute `scale * (text - unconditional)`. Nothing else is offered here, so that a
    pipeline that does more with the scale fails loudly. Either all rows of a batch have guidance or none has.

    The scales are on `device` in fp32 from the beginning, so that no step waits for a copy. A product is rounded to
    the rows' dtype once, as torch does with a Python number.
    """

    def __init__(self, scales: Sequence[float], device: "torch.device") -> None:
        import torch

        self._least = min(scales)
        self._scales = torch.tensor(scales, dtype=torch.float32, device=device)

    def __gt__(self, other: float) -> bool:
        return self._least > other

    def __le__(self, other: float) -> bool:
        return not self > other

    def __mul__(self, rows: "torch.Tensor") -> "torch.Tensor":
        # rows: (rows, channels, height, width), or (rows, tokens, channels)
        scales = self._scales.view(-1, *[1] * (rows.dim() - 1))
        return (scales * rows).to(rows.dtype)


class TurnsOfRows:
    """A guidance scale for each row, for a pipeline that computes `scale * (text - unconditional)` row after row.

    Each product takes the scale of the next row, and after the last row that of the first.
    """

    def __init__(self, scales: Sequence[float]) -> None:
        self._scales, self._products = scales, 0

    def __gt__(self, other: float) -> bool:
        return min(self._scales) > other

    def __mul__(self, row: "torch.Tensor") -> "torch.Tensor":
        scale = self._scales[self._products % len(self._scales)]
        self._products += 1
        return scale * row


@contextmanager
def embedded(denoiser: Any, scales: Sequence[float]) -> Iterator[None]:
    """A context in which the denoiser's input `guidance`, one number for all rows, becomes a number for each row.

    A denoiser that is called without guidance stays so.
    """
    import torch

    once: list[torch.Tensor] = []  # so that no step waits for a copy

    def for_each_row(_: Any, given: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if (one := keywords.get("guidance")) is not None:
            once[:] = once or [torch.tensor(scales, dtype=one.dtype).to(one.device)]
            keywords["guidance"] = once[0]
        return given, keywords

    hook = denoiser.register_forward_pre_hook(for_each_row, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def sizes_in_order(denoiser: Any) -> Iterator[None]:
    """A context in which a denoiser of Stable Diffusion XL gets the sizes of all negative prompts before the others'.

    Its pipeline has all negative rows first, but repeats (negative, prompt) for each image in diffusers 0.42.1, so that
    in a batch most rows would get sizes that are not theirs.
    """

    def reordered(_: Any, given: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        conditions = keywords["added_cond_kwargs"]
        ids = conditions["time_ids"]  # (2 x rows, 6)
        ordered = ids.view(-1, 2, ids.shape[-1]).transpose(0, 1).reshape(ids.shape)
        return given, keywords | {"added_cond_kwargs": conditions | {"time_ids": ordered}}

    hook = denoiser.register_forward_pre_hook(reordered, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
