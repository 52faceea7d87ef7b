"""Guidance with a scale for each row, and with its two passes one after the other if memory is short."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class RowGuidance:
    """A guidance scale for each row, used where diffusers' pipelines expect one number.

    The pipelines ask `scale > 1` and compute `scale * (text - unconditional)`. Nothing else is offered here, so that a
    pipeline that does more with the scale fails loudly. Either all rows of a batch have guidance or none has.

    The scales are on `device` in fp32 from the beginning, so that no step waits for a copy. A product is rounded to
    the rows' dtype once, as torch does with a Python number.
    """

    def __init__(self, scales: Sequence[float], device: torch.device) -> None:
        self._least = min(scales)
        self._scales = torch.tensor(scales, dtype=torch.float32, device=device)

    def __gt__(self, other: float) -> bool:
        return self._least > other

    def __mul__(self, rows: torch.Tensor) -> torch.Tensor:
        # rows: (rows, channels, height, width)
        scales = self._scales.view(-1, *[1] * (rows.dim() - 1))
        return (scales * rows).to(rows.dtype)


def in_two_passes(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A denoiser's `forward` that runs the first half of its rows, then the second, with half the activations at once.

    With guidance the halves are the unconditional rows and the text rows. All tensors of (2 x rows, ...) are divided.
    A single row has no guidance and is not divided.
    """

    def halves(sample: torch.Tensor, *arguments: Any, **keywords: Any) -> tuple[torch.Tensor]:
        rows = len(sample)
        if rows == 1:
            return (forward(sample, *arguments, **keywords)[0],)
        results = []
        for span in (slice(0, rows // 2), slice(rows // 2, rows)):
            given = [_part(value, rows, span) for value in (sample, *arguments)]
            named = {name: _part(value, rows, span) for name, value in keywords.items()}
            results.append(forward(*given, **named)[0])
        return (torch.cat(results),)

    return halves


def _part(value: Any, rows: int, span: slice) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == rows:
        return value[span]
    if isinstance(value, dict):
        return {name: _part(one, rows, span) for name, one in value.items()}
    return value
