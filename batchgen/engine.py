"""What the rest of batchgen knows of whatever makes images: the protocol of an engine and of a device's gauge."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from batchgen.policy import Policy
from batchgen.types import Decoded, Prompt


class Timer(Protocol):
    """What timed a call on the device."""

    def seconds(self) -> float:
        """How long the call took; waits until the device has ended it."""


class Gauge(Protocol):
    """The memory and the speed of the device that an engine computes on, in bytes and seconds."""

    @property
    def card(self) -> str:
        """The device's own name, which no other device has."""

    def free_bytes(self) -> int:
        """What this process may allocate in all, what it holds now included."""

    def whole_bytes(self) -> int:
        """What this process could allocate in all if no other process had any of the device."""

    def begin(self) -> int:
        """Begin to look for a peak; returns what is allocated now."""

    def peak_bytes(self) -> int:
        """The most that was allocated since `begin`."""

    def copied_bytes_per_s(self) -> float:
        """How fast page-locked host memory crosses to the device."""

    def flop_per_s(self, dtype: str) -> float | None:
        """How fast two large matrices are multiplied in this dtype; None where there is no memory for them."""


class Engine(Protocol):
    """What makes images, stage by stage, on one device. Texts and latents are its own affair.

    pipeline/engine.py has that of diffusers, the tests one without torch.
    """

    device_kind: str
    dtype: str
    scheduler_name: str

    beat: Callable[[], None]
    """Called whenever it got on: after texts, each denoising step and each decode. Whoever holds a lease sets it."""

    def prepare(self, policy: Policy) -> tuple[Policy, str | None]:
        """Set up for the stages that follow; the policy as the device can have it, and why it is another."""

    def encode(self, prompts: Sequence[Prompt]) -> Any:
        """The distinct texts of the prompts, encoded: text -> something with `cut`."""

    def denoise(self, texts: Any, prompts: Sequence[Prompt], policy: Policy) -> list[Any]:
        """One latent for each prompt."""

    def decode(self, latents: Sequence[Any], policy: Policy) -> list[Decoded]:
        """One image for each latent."""

    def crop(self, latent: Any, width_px: int, height_px: int) -> Any:
        """The latent of a corner of an image."""

    def passes(self) -> AbstractContextManager[Sequence[Timer]]:
        """Within it, calls of the denoiser are timed: one timer for each."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory was refused."""

    def recover(self) -> None:
        """Free what can be freed, with everything as it was before the call that failed."""

    def collect(self) -> None:
        """Give memory back to the device that nothing uses and that was kept for later."""

    @property
    def gauge(self) -> Gauge | None:
        """Of the device's memory; None where there is none to plan for."""


@dataclass(frozen=True, slots=True)
class Latent:
    """One denoised row, and the policy it was denoised under."""

    tensor: Any
    policy: Policy
