"""Guidance with its two passes one after the other if memory is short."""

from collections.abc import Callable
from typing import Any

import torch


def in_two_passes(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A denoiser's `forward` that runs the first half of its rows, then the second, with half the activations at once.

    With guidance the halves are the rows of the prompts and those of the negative prompts. All tensors of
    (2 x rows, ...) and lists of 2 x rows are divided. A single row has no guidance and is not divided.
    """

    def halves(*arguments: Any, **keywords: Any) -> tuple[Any]:
        rows = len(arguments[0] if arguments else keywords["hidden_states"])
        if rows == 1:
            return (forward(*arguments, **keywords)[0],)
        results = []
        for span in (slice(0, rows // 2), slice(rows // 2, rows)):
            given = [_part(value, rows, span) for value in arguments]
            named = {name: _part(value, rows, span) for name, value in keywords.items()}
            results.append(forward(*given, **named)[0])
        return (torch.cat(results) if isinstance(results[0], torch.Tensor) else [*results[0], *results[1]],)

    return halves


def _part(value: Any, rows: int, span: slice) -> Any:
    is_of_rows = isinstance(value, list) or (isinstance(value, torch.Tensor) and value.dim() > 0)
    if is_of_rows and len(value) == rows:
        return value[span]
    if isinstance(value, dict):
        return {name: _part(one, rows, span) for name, one in value.items()}
    return value
