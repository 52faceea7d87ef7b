"""What the rest of batchgen knows about an engine, which makes images, and about a gauge, which measures its device."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from batchgen.policy import Policy
from batchgen.types import Decoded, Prompt

# How many encoded texts an engine keeps on the device.
KEPT_TEXTS = 64


class Timer(Protocol):
    """A timer of one call on the device."""

    def seconds(self) -> float:
        """How long the call took. Waits until the device has finished it."""


class Gauge(Protocol):
    """The memory and the speed of the device that an engine computes on, in bytes and seconds."""

    @property
    def card(self) -> str:
        """The device's own name, which no other device has."""

    def free_bytes(self) -> int:
        """How much this process may allocate in all, including what it holds now."""

    def whole_bytes(self) -> int:
        """How much this process could allocate in all if no other process used the device."""

    def begin(self) -> int:
        """Begin to look for a peak. Returns how much is allocated now."""

    def peak_bytes(self) -> int:
        """The most that was allocated since `begin`."""

    def copied_bytes_per_s(self) -> float:
        """How fast page-locked host memory is copied to the device."""

    def flop_per_s(self, dtype: str) -> float | None:
        """How fast two large matrices are multiplied in this dtype; None if there is no memory for them."""


class Engine(Protocol):
    """It makes images, stage by stage, on one device. Only the engine looks into its texts and latents.

    pipeline/engine.py has the engine that uses diffusers; the tests have one without torch.
    """

    device_kind: str
    dtype: str
    scheduler_name: str

    beat: Callable[[], None]
    """The engine calls this whenever it makes progress: after texts, each denoising step and each decode. The holder
    of a lease sets it."""

    def prepare(self, policy: Policy) -> tuple[Policy, str | None]:
        """Set up for the stages that follow. Returns the policy that the device can run, and why if it differs."""

    def encode(self, prompts: Sequence[Prompt]) -> Any:
        """Encode the distinct texts of the prompts. Returns text -> something with `cut`."""

    def denoise(self, texts: Any, prompts: Sequence[Prompt], policy: Policy) -> list[Any]:
        """One latent for each prompt."""

    def decode(self, latents: Sequence[Any], policy: Policy) -> list[Decoded]:
        """One image for each latent."""

    def warm_up(self, prompts: Sequence[Prompt], policy: Policy) -> None:
        """Compile what the policy compiles, for micro-batches of this shape. Other shapes are computed eagerly."""

    def crop(self, latent: Any, width_px: int, height_px: int) -> Any:
        """The latent of the top left corner of an image."""

    def passes(self) -> AbstractContextManager[Sequence[Timer]]:
        """A context in which each call of the denoiser is timed, by a timer of its own."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory was refused."""

    def recover(self) -> None:
        """Free what can be freed, and restore the state from before the call that failed."""

    def collect(self) -> None:
        """Give back to the device memory that nothing uses and that was kept for later."""

    @property
    def gauge(self) -> Gauge | None:
        """The gauge of the device's memory; None if there is no such memory to plan for."""


@dataclass(frozen=True, slots=True)
class Latent:
    """One denoised row, and the policy it was denoised under."""

    tensor: Any
    policy: Policy
