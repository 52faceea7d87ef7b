"""What the two halves of a guided batch share. Until the first attention to the text, the rows of the prompts and those
of the negative prompts are the same, so they are computed once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Forwards = dict[Any, Callable[..., Any]]
"""Modules, and the forward that each has meanwhile."""

# Settings of a UNet by which its rows differ from the beginning.
_OTHER_CONDITIONS = ("addition_embed_type", "class_embed_type", "time_cond_proj_dim")


def before_text(denoiser: Any) -> list[Any]:
    """The modules of a denoiser that see no text yet, if it is a UNet of which anything can be shared; else none.

    With SD 1.x and 2.x these are all before the first cross-attention. With SDXL the text enters with the time.
    """
    first: Any = next(iter(getattr(denoiser, "down_blocks", ())), None)
    if type(first).__name__ != "CrossAttnDownBlock2D":
        return []
    if any(denoiser.config.get(name) is not None for name in _OTHER_CONDITIONS):
        return []
    transformer = first.attentions[0]
    block = transformer.transformer_blocks[0]
    if block.only_cross_attention or block.norm_type != "layer_norm":
        return []
    return [denoiser.conv_in, first.resnets[0], transformer.norm, transformer.proj_in, block.norm1, block.attn1]


def shared(denoiser: Any, others: Forwards) -> Forwards:
    """The modules that see no text yet, with forwards that compute once what both halves have alike.

    `others`: modules that have another forward already.
    """
    return {module: once_for_both(others.get(module, module.forward)) for module in before_text(denoiser)}


def once_for_both(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A module's forward that computes the first half of the rows, and gives it for both halves."""

    def call(rows: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        count = len(rows)
        made = forward(
            rows[: count // 2],
            *(_first_half(one, count) for one in rest),
            **{name: _first_half(one, count) for name, one in named.items()},
        )
        return torch.cat([made, made])

    return call


def _first_half(value: Any, count: int) -> Any:
    is_of_rows = isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == count
    return value[: count // 2] if is_of_rows else value


@contextmanager
def swapped(forwards: Forwards) -> Iterator[None]:
    """A context in which these modules have other forwards. One that a hook gave a module comes back."""
    hooked = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, own in hooked.items():
            del module.forward
            if own is not None:
                module.forward = own
