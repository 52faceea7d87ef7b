"""Rows -> prompts -> batches: which images each row asks for. It streams, and the same rows give the same batches."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from batchgen.config.bounds import KEY_PATTERN, PLANNED_KEY_PATTERN, SEED_LIMIT
from batchgen.config.schema import JobConfig
from batchgen.errors import ModelError
from batchgen.types import EMPTY_NEGATIVE, GUIDED_ABOVE, NO_NEGATIVE, Group, Lora, Prompt, Reject, Row


def image_seed(run_seed: int, prompt: str, negative_prompt: str, occurrence: int, copy: int) -> int:
    """The 32-bit seed of an image whose row names none: 0 <= seed < 2**32.

    It depends only on the run's seed and the text: `occurrence` counts the earlier rows with the same text, `copy` the
    images of one row. It never depends on place, batch, worker or time.
    """
    parts = (str(run_seed), prompt, negative_prompt, str(occurrence), str(copy))
    digest = hashlib.blake2b(b"batchgen seed 1", digest_size=4)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)  # lengths keep the parts apart
    return int.from_bytes(digest.digest(), "big")


_WATCHED_SEEDS = 100_000  # how many are kept to find rows that share them


class _Seeded(NamedTuple):
    """A row that names its seed, and how many images it asks for."""

    source: str
    line: int
    seed: int
    copies: int


FindLoras = Callable[[str | None], tuple[Lora, ...]]
"""It finds the LoRA files that a row names; None stands for those of the job. It raises ModelError."""


def no_loras(said: str | None) -> tuple[Lora, ...]:
    """Where neither the job nor the rows may have a LoRA. Raises ValueError for a row that names one."""
    if said is not None:
        raise ValueError(f"there is nothing that finds the LoRA {said}")
    return ()


class Planner:
    """Settles every choice for each row. It keeps one digest for each distinct text and for each key from a row.

    What the user should know of the plan becomes a line in `notes`.
    """

    def __init__(
        self,
        job: JobConfig,
        notes: list[str] | None = None,
        guided_above: float | None = None,
        loras: FindLoras = no_loras,
    ) -> None:
        """`guided_above`: above which scale the model has guidance; None: above 1."""
        self._job = job
        self._loras = loras
        self._guided_above = GUIDED_ABOVE if guided_above is None else guided_above
        self._occurrences: dict[int, int] = {}
        self._keys: set[int] = set()
        self._seeds: dict[int, _Seeded] | None = {}  # None: they are not watched any more
        self._notes = [] if notes is None else notes

    def recall(self, prompts: Iterable[Prompt]) -> int:
        """Count the rows of an earlier plan, so that an extension continues after them; return how many there are."""
        rows = 0
        for prompt in prompts:
            if not PLANNED_KEY_PATTERN.fullmatch(prompt.key):
                self._keys.add(_digest(prompt.key))
            if prompt.copy == 0:  # the copies of a row are one occurrence
                rows += 1
                self._occurrence(prompt.prompt, prompt.negative_prompt)
        return rows

    def prompts(self, rows: Iterable[Row | Reject], limit: int | None) -> Iterator[Prompt | Reject]:
        """One prompt for each image that a row asks for, in order; at most `limit` rows are used."""
        good = 0
        for row in rows:
            if isinstance(row, Reject):
                yield row
                continue
            if limit is not None and good == limit:
                return
            prompts = self._prompts_of(row)
            good += isinstance(prompts, list)
            yield from prompts if isinstance(prompts, list) else [prompts]

    def _prompts_of(self, row: Row) -> list[Prompt] | Reject:
        job = self._job
        copies = row.images_per_prompt or job.images_per_prompt
        if row.seed is not None and row.seed + copies > SEED_LIMIT:
            return Reject(row.source, row.line, f"seed {row.seed} + {copies} images goes beyond 2**32 - 1")
        keys = _keys_of(row, copies)
        if row.key is not None and (problem := self._claim(keys)):
            return Reject(row.source, row.line, problem)
        if row.seed is not None and self._seeds is not None:
            self._watch_seeds(row, row.seed, copies)
        negative = _negative(job.negative_prompt if row.negative_prompt is None else row.negative_prompt)
        lora = self._found(row)
        occurrence = self._occurrence(row.prompt, negative)
        return [
            Prompt(
                key=key,
                prompt=row.prompt,
                negative_prompt=negative,
                seed=image_seed(job.seed, row.prompt, negative, occurrence, copy)
                if row.seed is None
                else row.seed + copy,
                width=row.width or job.width,
                height=row.height or job.height,
                steps=row.steps or job.steps,
                guidance=float(job.guidance if row.guidance is None else row.guidance),
                source=row.source,
                line=row.line,
                copy=copy,
                extra=row.extra,
                guided_above=self._guided_above,
                lora=lora,
            )
            for copy, key in enumerate(keys)
        ]

    def _found(self, row: Row) -> tuple[Lora, ...]:
        try:
            return self._loras(row.lora)
        except ModelError as error:
            raise ModelError(f"{row.source}:{row.line}: {error}" if row.lora is not None else str(error)) from error

    def _watch_seeds(self, row: Row, seed: int, copies: int) -> None:
        """Note once if the images of a row, whose seeds count up from the row's, share a seed with another row."""
        assert self._seeds is not None
        for copy in range(copies):
            other = self._seeds.setdefault(seed + copy, _Seeded(row.source, row.line, seed, copies))
            if other.seed != seed:
                many = max(copies, other.copies)
                self._notes.append(
                    f"images_per_prompt={many} counts up from a row's own seed, so that rows share seeds: "
                    f"{other.source}:{other.line} and {row.source}:{row.line} both use {seed + copy}; seeds that lie "
                    f"{many} apart would not"
                )
                self._seeds = None
                return
        if len(self._seeds) > _WATCHED_SEEDS:
            self._seeds = None

    def _occurrence(self, prompt: str, negative_prompt: str) -> int:
        text = _digest(f"{len(prompt)} {prompt}{negative_prompt}")
        occurrence = self._occurrences.get(text, 0)
        self._occurrences[text] = occurrence + 1
        return occurrence

    def _claim(self, keys: list[str]) -> str | None:
        """Take the keys that a row names; return what is wrong with them, or None. The planner's own never repeat."""
        for key in keys:
            if not KEY_PATTERN.fullmatch(key):
                return f"key {key} is too long with its copy number"
            if PLANNED_KEY_PATTERN.fullmatch(key):
                return f"key {key} has the form that is kept for rows without a key"
        digests = [_digest(key) for key in keys]
        for key, digest in zip(keys, digests, strict=True):
            if digest in self._keys:
                return f"duplicate key {key}"
        self._keys.update(digests)
        return None


def _keys_of(row: Row, copies: int) -> list[str]:
    if row.key is not None and copies == row.captions == 1:
        return [row.key]
    stem = f"{row.file:03d}{row.row:09d}" if row.key is None else row.key
    first = row.caption * copies  # the images of a record's earlier captions come before
    return [f"{stem}-{number:02d}" for number in range(first, first + copies)]


def _negative(said: str) -> str:
    word = said.strip().lower()
    if word == NO_NEGATIVE:
        return ""
    return EMPTY_NEGATIVE if word == EMPTY_NEGATIVE else said


def _digest(text: str) -> int:
    # 128 bits: no two of ten million texts share one, and an int of that size takes 48 bytes.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def pack_batches(prompts: Iterable[Prompt | Reject], batch_size: int) -> Iterator[tuple[Prompt, ...] | Reject]:
    """Prompts of one group together, `batch_size` at a time, in the order in which the batches fill.

    Rows that are left over at the end come last, in at most one short batch a group. Rejects pass through at once.
    """
    filling: dict[Group, list[Prompt]] = {}
    for prompt in prompts:
        if isinstance(prompt, Reject):
            yield prompt
            continue
        group = filling.setdefault(prompt.group, [])
        group.append(prompt)
        if len(group) == batch_size:
            yield tuple(group)
            group.clear()
    yield from (tuple(group) for group in filling.values() if group)
