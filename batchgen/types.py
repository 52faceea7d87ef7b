"""What flows between the stages: frozen, plain, no torch. The words are those of README's glossary."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# A row or the job may give these words, in any case, instead of a negative prompt. The first says that there is none,
# even if the job has one; the second stands for the empty text, encoded. Only to SDXL do the two differ.
NO_NEGATIVE, EMPTY_NEGATIVE = "<none>", "<empty>"
# Above which scale most models have guidance.
GUIDED_ABOVE = 1.0


@dataclass(slots=True)  # not frozen: it is part of the configuration's schema, and OmegaConf merges into it
class Columns:
    """Which column of a prompt file holds which field.

    A field's own name means: find it by its names. Any other name must be there. None means: find the column for
    `prompt`, let no column set another field.
    """

    prompt: str | None = None
    key: str | None = "key"
    negative_prompt: str | None = "negative_prompt"
    seed: str | None = "seed"
    width: str | None = "width"
    height: str | None = "height"
    steps: str | None = "steps"
    guidance: str | None = "guidance"
    images_per_prompt: str | None = "images_per_prompt"
    lora: str | None = "lora"


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt file: where its bytes are on this machine, and the address that they were fetched from, if they were."""

    path: Path
    address: str | None = None

    @property
    def name(self) -> str:
        """What messages, plans and samples call the file: its address, without secrets, or its path."""
        return str(self.path) if self.address is None else self.address


@dataclass(frozen=True, slots=True)
class Row:
    """One readable row of a prompt file; None where the row leaves a field to the job.

    `file` is the file's place among the job's files, `row` the row's place in it (from 0, bad rows counted).
    `line` is what a person would look for: the number of the physical line, or of the item, from 1.
    A record with a list of captions gives a row for each: the row is that of `caption` (from 0) of `captions`.
    """

    file: int
    row: int
    source: str
    line: int
    prompt: str
    key: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    images_per_prompt: int | None = None
    lora: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    caption: int = 0
    captions: int = 1


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be used: its file, line (from 1) and the reason."""

    source: str
    line: int
    reason: str


class Lora(NamedTuple):
    """A LoRA file that is merged into the model, and how strongly. `sha256` is that of the file; "" is not known."""

    path: str
    weight: float
    sha256: str


Group = tuple[int, int, int, bool, tuple[Lora, ...]]
"""Width and height in pixels, steps, whether there is guidance, and LoRA: what prompts must share to run together."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One image to make. Every choice is settled, so that any worker on any machine makes the same image.

    `negative_prompt` is "" for none, EMPTY_NEGATIVE for the empty text.
    """

    key: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    source: str
    line: int
    copy: int = 0  # which of the images that one row asks for
    extra: dict[str, Any] = field(default_factory=dict)
    guided_above: float = GUIDED_ABOVE  # above which scale the model has guidance
    lora: tuple[Lora, ...] = ()

    @property
    def is_guided(self) -> bool:
        """Whether there is guidance: a second pass with the negative prompt, which takes twice the work."""
        return self.guidance > self.guided_above

    @property
    def group(self) -> Group:
        """What prompts must share to run together. Without guidance the model runs half the rows."""
        return (self.width, self.height, self.steps, self.is_guided, self.lora)

    @property
    def negative_text(self) -> str:
        """The text that is encoded for the negative prompt."""
        return "" if self.negative_prompt == EMPTY_NEGATIVE else self.negative_prompt


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts of one group that run together, and the unit of logging. `index` counts within the shard."""

    index: int
    prompts: tuple[Prompt, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return (self.prompts[0].width, self.prompts[0].height)


@dataclass(frozen=True, slots=True)
class Shard:
    """A whole number of batches that become one tar, and the unit of work."""

    index: int
    batches: tuple[Batch, ...]

    @property
    def keys(self) -> list[str]:
        """The planned keys, in plan order."""
        return [prompt.key for batch in self.batches for prompt in batch.prompts]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder made of one row: (height, width, 3) uint8 as bytes, or None if it was not finite."""

    pixels: bytes | None
    width: int
    height: int
    retried_in_fp32: bool = False
    flagged: bool | None = None  # by the model's safety checker; None if that is off


@dataclass(frozen=True, slots=True)
class Sample:
    """The outcome of one row: the files that go into the tar under its key, or the reason why there are none."""

    key: str
    status: str  # "ok", "failed" or "filtered"
    files: dict[str, bytes] = field(default_factory=dict)  # by extension, without the dot
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Meters:
    """Memory figures at the end of a unit, in bytes. A figure that the device does not have is None."""

    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    device_free_bytes: int | None
    device_used_bytes: int | None  # by all processes
    host_rss_bytes: int
    host_pinned_bytes: int | None
