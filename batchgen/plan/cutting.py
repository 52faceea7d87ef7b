"""Batches -> shards: how work is cut so that all workers end together. It streams, and is the same for the same rows.

Two rules say how many batches a shard holds, one by what came before it and one by what comes after it:

- It holds at most an eighth of the batches that each worker has had so far. So a plan with enough batches has at least
  8 shards a worker, and nobody needs to know beforehand how many rows there are.
- It holds less than half of the work that is left for each worker, so that shards get smaller toward the end. This is
  factoring (Hummel, Schonberg and Flynn, Communications of the ACM 35(8), 1992). Of the last 2 x workers batches half
  a worker's part is less than a batch: these are cut into batches of fewer rows, 4 at least. In a long plan they have
  a quarter of a batch or a 64th of what each worker has had so far, whichever is less: a device makes few rows slowly,
  and needs time for each size that is new to it.

To see the end coming, 2 x workers shards are held back: where all rows take equally long, never more than a quarter of
the rows so far or 2 x workers batches, whichever is more. Batches of rows that take much longer wait until there is
other work to go with them, or are cut with the last. No more than 64 x workers batches are ever held.

One worker's batches are never cut into fewer rows. Nor are they under determinism=strict, since a row's low bits
depend on how many rows run together: there the workers decide which shard a batch is in, and never which rows a batch
holds.

Where `output.batches_per_shard` is set, neither rule applies: every shard holds that many batches, and no batch is cut.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice

from batchgen.config.schema import Config
from batchgen.types import Batch, Group, Prompt, Reject, Shard

MOST_BATCHES = 32
FEWEST_ROWS = 4
_SHARDS_A_WORKER, _PIECES_A_WORKER = 8, 64

Prompts = tuple[Prompt, ...]
"""What becomes a batch: prompts of one group."""


def cut_shards(batches: Iterable[Prompts | Reject], config: Config, first_shard: int = 0) -> Iterator[Shard | Reject]:
    """The shards for `config.launch.workers` workers (None: one). Rejects pass through at once."""
    if config.output.batches_per_shard is None:
        parts = _by_workers(batches, config)
    else:
        parts = _by_number(batches, config.output.batches_per_shard)
    index = first_shard
    for part in parts:
        if isinstance(part, Reject):
            yield part
            continue
        yield Shard(index, tuple(Batch(place, prompts) for place, prompts in enumerate(part)))
        index += 1


def _by_number(batches: Iterable[Prompts | Reject], size: int) -> Iterator[Sequence[Prompts] | Reject]:
    filling: list[Prompts] = []
    for batch in batches:
        if isinstance(batch, Reject):
            yield batch
            continue
        filling.append(batch)
        if len(filling) == size:
            yield filling
            filling = []
    if filling:
        yield filling


def _by_workers(batches: Iterable[Prompts | Reject], config: Config) -> Iterator[Sequence[Prompts] | Reject]:
    workers = config.launch.workers or 1
    parts = 2 * workers
    held = _Held()
    planned = 0
    for batch in batches:
        if isinstance(batch, Reject):
            yield batch
            continue
        held.add(batch)
        size = _grown(planned, workers)
        fits = held.fit(size, parts) if len(held.batches) > parts * size else 0
        if fits or len(held.batches) > parts * MOST_BATCHES:
            yield held.take(max(1, fits))
            planned += max(1, fits)
    while fits := held.fit(min(_grown(planned, workers), len(held.batches) // parts), parts):  # no more rows come
        yield held.take(fits)
        planned += fits
    cuts = workers > 1 and config.determinism != "strict"
    batch_size = config.job.batch_size
    fewest = max(FEWEST_ROWS, min(batch_size // 4, planned * batch_size // (_PIECES_A_WORKER * workers)))
    tail = _cut(held.batches, workers, batch_size, fewest) if cuts else list(held.batches)
    yield from ([prompts] for prompts in sorted(tail, key=_work, reverse=True))  # the smallest are the last


class _Held:
    """Batches that are held back, and their work."""

    def __init__(self) -> None:
        self.batches: deque[Prompts] = deque()
        self._work = 0

    def add(self, batch: Prompts) -> None:
        self.batches.append(batch)
        self._work += _work(batch)

    def fit(self, size: int, parts: int) -> int:
        """How many of the first `size` batches are together less than one of `parts` equal parts of all work."""
        sums = accumulate(_work(batch) for batch in islice(self.batches, size))
        return sum(work * parts < self._work for work in sums)

    def take(self, count: int) -> list[Prompts]:
        taken = [self.batches.popleft() for _ in range(count)]
        self._work -= sum(map(_work, taken))
        return taken


def _grown(planned: int, workers: int) -> int:
    """How many batches a shard holds after `planned` batches, while more come."""
    return max(1, min(MOST_BATCHES, planned // (_SHARDS_A_WORKER * workers)))


def _work(prompts: Prompts) -> int:
    return len(prompts) * _row_work(prompts[0].group)


def _row_work(group: Group) -> int:
    """Roughly what a row takes in comparison with rows of other groups: pixels times passes of the model."""
    width, height, steps, guided, _ = group
    return width * height * steps * (2 if guided else 1)


def _cut(batches: Iterable[Prompts], workers: int, batch_size: int, fewest: int) -> list[Prompts]:
    """The same prompts in smaller batches: a group's prompts stay in order, and its largest batch comes first."""
    rows: dict[Group, list[Prompt]] = {}
    for prompts in batches:
        rows.setdefault(prompts[0].group, []).extend(prompts)
    sizes = cut_sizes({group: len(prompts) for group, prompts in rows.items()}, workers, batch_size, fewest)
    pieces: list[Prompts] = []
    for group, together in rows.items():
        stream = iter(together)
        pieces += [tuple(islice(stream, size)) for size in sorted(sizes[group], reverse=True)]
    return pieces


def cut_sizes(rows: dict[Group, int], workers: int, batch_size: int, fewest: int) -> dict[Group, list[int]]:
    """How many rows each of the last batches holds, by group. `rows`: how many rows each group has left.

    `fewest`: how many a batch should have at least. Each round gives every worker one batch. It takes half of what is
    left, in batches of 4, 8, 16, ... rows, which padding never makes larger. The last round takes all the rest in equal
    parts.
    """
    sizes: dict[Group, list[int]] = {group: [] for group in rows}
    # Rows that take long come first, while there is other work to even them out.
    left = dict(sorted(rows.items(), key=lambda item: _row_work(item[0]), reverse=True))
    work = sum(count * _row_work(group) for group, count in left.items())
    while left:
        half = work // (2 * workers)
        for waiting in range(workers, 0, -1):
            if not left:
                break
            group, count = next(iter(left.items()))
            row_work = _row_work(group)
            many = 1 << (half // row_work).bit_length() >> 1  # the power of two that is not above it
            if many < fewest and len(left) == 1:
                many = -(-count // waiting)
            size = _taken(many, count, batch_size, fewest)
            sizes[group].append(size)
            work -= size * row_work
            left[group] -= size
            if not left[group]:
                del left[group]
    return sizes


def _taken(many: int, count: int, batch_size: int, fewest: int) -> int:
    """About `many` of `count` rows, so that where possible neither they nor the rest are fewer than `fewest`."""
    size = min(max(many, fewest), batch_size, count)
    if 0 < count - size < fewest:
        size = count if count <= batch_size else max(min(size, fewest), count - fewest)
    return size
