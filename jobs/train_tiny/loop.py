"""The training loop of both stages: by the clock, with a moving average of the weights, and checkpoints."""

import copy
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

_WARMUP_STEPS = 200
_SAVE_EVERY_S = 30.0
_PRINT_EVERY_S = 15.0


def train(
    module: nn.Module, loss_of: Callable[[float], Tensor], checkpoint: Path, limit_s: float, peak_rate: float
) -> nn.Module:
    """Train for `limit_s` seconds in all, those of the checkpoint counted; returns the averaged weights' module.

    `loss_of(share)` makes a batch's loss; share, 0..1, is the part of the time that has passed. The learning rate
    rises for a few hundred steps and falls to zero along a cosine.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    average = copy.deepcopy(module).requires_grad_(False)
    spent_s, step = _restore(checkpoint, module, average, optimizer)
    last, printed, saved = time.monotonic(), 0.0, time.monotonic()
    own: list[Tensor] = list(module.parameters())
    kept: list[Tensor] = list(average.parameters())
    total = torch.zeros((), device=own[0].device)
    since = 0
    while spent_s < limit_s:
        share = spent_s / limit_s
        rate = peak_rate * min(1.0, (step + 1) / _WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(share)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(kept, own, 1 - min(0.999, (step + 1) / (step + 20)))
        step, since = step + 1, since + 1
        total += loss.detach()
        if step % 10 == 0:
            mean = float(total) / since  # waits for the device, so that the clock is true
            now = time.monotonic()
            spent_s, last = spent_s + now - last, now
            if now - printed > _PRINT_EVERY_S:
                print(f"{checkpoint.stem}: {spent_s:.0f} s, step {step}, loss {mean:.4f}", flush=True)
                printed, since = now, 0
                total.zero_()
            if now - saved > _SAVE_EVERY_S:
                _save(checkpoint, module, average, optimizer, spent_s, step)
                saved = last = time.monotonic()
    _save(checkpoint, module, average, optimizer, spent_s, step)
    return average.eval()


def _restore(
    checkpoint: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[float, int]:
    if not checkpoint.exists():
        return 0.0, 0
    kept = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module.load_state_dict(kept["module"])
    average.load_state_dict(kept["average"])
    optimizer.load_state_dict(kept["optimizer"])
    print(f"{checkpoint.stem}: goes on from {checkpoint} at {kept['spent_s']:.0f} s", flush=True)
    return kept["spent_s"], kept["step"]


def _save(
    checkpoint: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, spent_s: float, step: int
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "module": module.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
        "spent_s": spent_s, "step": step,
    }  # fmt: skip
    temporary = checkpoint.with_suffix(".tmp")
    torch.save(kept, temporary)
    os.replace(temporary, checkpoint)
