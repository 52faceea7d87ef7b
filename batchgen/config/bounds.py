"""The values that a field may take, whether they come from the configuration or from a row."""

import re
from dataclasses import dataclass

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The form of the planner's keys: <file:03d><row:09d>-<copy:02d>. A row's own key must not have this form.
PLANNED_KEY_PATTERN = re.compile(r"\d{12,}-\d{2,}")
MAX_PROMPT_CHARS = 20_000
SEED_LIMIT = 2**32  # 0 <= seed < 2**32; beyond that a CPU torch.Generator repeats itself


@dataclass(frozen=True, slots=True)
class Bound:
    """An inclusive range; `multiple` applies to whole numbers only."""

    kind: type
    low: float
    high: float
    multiple: int = 1

    def problem(self, name: str, value: object) -> str | None:
        """Say what is wrong with this value of `name`, or return None. A bool does not count as a number."""
        expected = "a whole number" if self.kind is int else "a number"
        allowed = (int,) if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            return f"{name} must be {expected}, got {value!r}"
        if not self.low <= value <= self.high:  # NaN fails too, and no int is too large to compare
            return f"{name} must be between {self.low} and {self.high}, got {value!r}"
        if self.kind is int and int(value) % self.multiple:
            return f"{name} must be a multiple of {self.multiple}, got {value!r}"
        return None


BOUNDS = {
    "width": Bound(int, 64, 16_384, multiple=8),  # the VAE shrinks by 8; diffusers refuses other sizes
    "height": Bound(int, 64, 16_384, multiple=8),
    "steps": Bound(int, 1, 1_000),
    "guidance": Bound(float, 0.0, 100.0),
    "clip_skip": Bound(int, 1, 100),
    "text_chunks": Bound(int, 1, 16),
    "timestep_shift": Bound(float, 0.01, 100.0),
    "guided_above": Bound(float, 0.0, 100.0),
    "seed": Bound(int, 0, SEED_LIMIT - 1),
    "images_per_prompt": Bound(int, 1, 10_000),
    "batch_size": Bound(int, 1, 4_096),
    "limit": Bound(int, 1, 10**12),
    "batches_per_shard": Bound(int, 1, 100_000),
    "quality": Bound(int, 1, 100),
    "workers": Bound(int, 1, 1_024),
    "micro_batch": Bound(int, 1, 4_096),
    "decode_chunk": Bound(int, 1, 4_096),
    "tile_px": Bound(int, 64, 16_384, multiple=8),
    "stream_buffers": Bound(int, 0, 100_000),  # 0 leaves the number to batchgen
    "threads": Bound(int, 1, 1_024),
    "restarts": Bound(int, 0, 1_000),
    "lease_timeout_s": Bound(float, 0.1, 86_400),
    "warn_s": Bound(float, 0.0, 86_400),
    "spread_s": Bound(float, 0.0, 3_600),
    "workers_per_element": Bound(int, 1, 1_024),
    "at_once": Bound(int, 1, 100_000),
    "price_per_gpu_hour": Bound(float, 0.0, 1e9),
}
