"""How work is cut into shards: what a shard may hold, and that all workers end together by a clock of our own."""

import heapq
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.padding import PADDED_SIZES, padded_rows, spans
from batchgen.plan.cutting import FEWEST_ROWS, MOST_BATCHES, cut_shards
from batchgen.plan.planner import pack_batches
from batchgen.types import Prompt, Reject, Shard
from tests.builders import make_config, make_prompt

COMMIT_S = 0.05
GROUPS: list[dict[str, Any]] = [{}, {"width": 512, "height": 512}, {"steps": 50}, {"guidance": 1.0}]


def cut(
    tmp_path: Path, prompts: list[Prompt], workers: int | None = 8, batch_size: int = 32, **more: Any
) -> list[Shard]:
    settings = {"launch__workers": workers, "job__batch_size": batch_size, "output__batches_per_shard": None} | more
    shards = list(cut_shards(pack_batches(prompts, batch_size), make_config(tmp_path, **settings)))
    assert all(isinstance(shard, Shard) for shard in shards)
    return [shard for shard in shards if isinstance(shard, Shard)]


def prompts_of(count: int, groups: int = 1) -> list[Prompt]:
    chosen = random.Random(count)
    return [make_prompt(f"{place:09d}", **GROUPS[chosen.randrange(groups)]) for place in range(count)]


def batch_rows(shards: list[Shard]) -> list[list[int]]:
    return [[len(batch.prompts) for batch in shard.batches] for shard in shards]


def seconds(shard: Shard, row_s: float) -> float:
    """Of a shard on an engine whose time goes by padded rows."""
    spent = [span for batch in shard.batches for span in spans(len(batch.prompts), 32)]
    return row_s * sum(padded_rows(len(span), 32) for span in spent) + COMMIT_S


def busy(
    shards: list[Shard],
    workers: int,
    row_s: float,
    apart_s: float = 0.0,
    slow: int | None = None,
    from_first: bool = False,
) -> float:
    """The share of their time that workers work, each from its own start to the last commit of all.

    Whoever is free takes the first shard that nobody has. Workers start `apart_s` one after the other; `slow` is the
    one that takes twice as long. With `from_first`, the time of all begins with the first batch.
    """
    free = [(worker * apart_s, worker) for worker in range(workers)]
    starts = [0.0 if from_first else start_s for start_s, _ in free]
    end_s = worked_s = 0.0
    for shard in shards:
        now_s, worker = heapq.heappop(free)
        spent_s = seconds(shard, row_s) * (2 if worker == slow else 1)
        worked_s += spent_s
        end_s = max(end_s, now_s + spent_s)
        heapq.heappush(free, (now_s + spent_s, worker))
    return worked_s / sum(max(0.0, end_s - start_s) for start_s in starts)


@pytest.mark.parametrize("row_s", [0.05, 0.25, 2.5])
@pytest.mark.parametrize("count", [72, 1_100, 9_000])
def test_eight_workers_are_busy_from_the_first_batch_to_the_last_commit(
    tmp_path: Path, count: int, row_s: float
) -> None:
    assert busy(cut(tmp_path, prompts_of(count)), 8, row_s) >= 0.95


@pytest.mark.parametrize(
    ("count", "row_s"), [(72, 0.25), (72, 1.0), *((n, s) for n in (1_100, 9_000) for s in (0.25, 2.5))]
)
def test_they_are_busy_though_they_start_one_by_one_and_one_is_slow(tmp_path: Path, count: int, row_s: float) -> None:
    shards = cut(tmp_path, prompts_of(count))
    assert min(busy(shards, 8, row_s, apart_s=20.0, slow=worker) for worker in range(8)) >= 0.85


@pytest.mark.parametrize(("count", "row_s"), [(1_100, 10.0), (9_000, 1.0)])
def test_in_a_run_of_some_length_the_late_starts_count_little(tmp_path: Path, count: int, row_s: float) -> None:
    shards = cut(tmp_path, prompts_of(count))
    assert min(busy(shards, 8, row_s, 20.0, worker, from_first=True) for worker in range(8)) >= 0.85


@pytest.mark.parametrize("count", [72, 1_100, 9_000])
def test_the_end_comes_as_soon_as_it_can(tmp_path: Path, count: int) -> None:
    """Padding fills no time that shorter batches would save: within a batch of 4 rows of the best."""
    shards = cut(tmp_path, prompts_of(count))
    worked_s = sum(seconds(shard, 1.0) - COMMIT_S for shard in shards)
    assert worked_s / 8 / busy(shards, 8, 1.0) <= count / 8 + FEWEST_ROWS


@pytest.mark.parametrize("workers", [2, 3, 8, 64])
def test_workers_stay_busy_for_other_numbers_too(tmp_path: Path, workers: int) -> None:
    for count in (40 * workers, 77 * workers, 311 * workers, 1_013 * workers):
        assert busy(cut(tmp_path, prompts_of(count)[:count], workers), workers, 1.0) >= 0.9, count


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 32, 100])
@pytest.mark.parametrize("workers", [None, 1, 2, 8, 33])
@pytest.mark.parametrize("groups", [1, 4])
def test_what_a_shard_may_hold(tmp_path: Path, workers: int | None, batch_size: int, groups: int) -> None:
    for count in (1, 5, 35, 72, 333, 1_100, 4_000):
        prompts = prompts_of(count, groups)
        shards = cut(tmp_path, prompts, workers, batch_size)
        batches = [batch.prompts for shard in shards for batch in shard.batches]
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert max(len(shard.batches) for shard in shards) <= MOST_BATCHES
        assert max(map(len, batches)) <= batch_size
        for group in {prompt.group for prompt in prompts}:  # every prompt once, those of a group in their order
            mine = [batch for batch in batches if batch[0].group == group]
            planned = [prompt for prompt in prompts if prompt.group == group]
            assert [prompt for batch in mine for prompt in batch] == planned
            if batch_size > 2 * FEWEST_ROWS:
                assert sum(len(batch) < FEWEST_ROWS for batch in mine) <= 1
        whole = list(pack_batches(prompts, batch_size))
        assert len(shards) >= min(len(whole), 8 * (workers or 1))
        if workers in (None, 1):
            assert sorted(batches, key=str) == sorted(whole, key=str)
        assert cut(tmp_path, prompts, workers, batch_size) == shards


def test_no_batch_that_is_cut_grows_by_padding_but_in_the_last_round(tmp_path: Path) -> None:
    rows = [count for shard in batch_rows(cut(tmp_path, prompts_of(1_100))) for count in shard]
    assert sum(count not in PADDED_SIZES for count in rows) <= 8
    assert batch_rows(cut(tmp_path, prompts_of(72))) == [[5]] * 8 + [[4]] * 8


def test_in_a_long_plan_no_worker_gets_crumbs(tmp_path: Path) -> None:
    """On an H100, 4 rows of SD 1.5 take 0.24 s each and 32 rows 0.17, and a size that is new takes 0.5 to 0.9 more."""
    rows = [count for shard in batch_rows(cut(tmp_path, prompts_of(1_280), 2)) for count in shard]
    assert [count for count in rows if count < 32] == [16, 16, 8, 8, 8, 8]


def test_shards_grow_then_shrink_and_the_smallest_come_last(tmp_path: Path) -> None:
    rows = batch_rows(cut(tmp_path, prompts_of(9_000)))
    sizes = [len(shard) for shard in rows]
    top = sizes.index(max(sizes))
    assert sizes[:64] == [1] * 64
    assert sizes[:top] == sorted(sizes[:top])
    assert sizes[top:] == sorted(sizes[top:], reverse=True)
    tail = [shard[0] for shard in rows if sum(shard) < 32]
    assert tail == [shard[0] for shard in rows[-len(tail) :]] == sorted(tail, reverse=True)


def test_rows_that_take_long_are_cut_finer_and_come_before_what_evens_them_out(tmp_path: Path) -> None:
    large = [make_prompt(f"large{place}", width=1024, height=1024) for place in range(32)]
    small = [make_prompt(f"small{place}") for place in range(320)]
    for prompts in (small + large, large + small):
        shards = cut(tmp_path, prompts, 4)
        rows = [(shard.batches[0].size[0], len(shard.keys)) for shard in shards]
        first = rows.index((1024, 4))
        assert rows[first : first + 8] == [(1024, 4)] * 8
        assert sum(count for width, count in rows[first + 8 :] if width == 64) >= 32


def test_a_few_large_images_among_many_small_ones_keep_nobody_waiting(tmp_path: Path) -> None:
    chosen = random.Random(5)
    edges = [4096 if chosen.random() < 0.01 else 512 for _ in range(5_000)]
    shards = cut(tmp_path, [make_prompt(f"{place}", width=edge, height=edge) for place, edge in enumerate(edges)])
    row_s = {edge: edge**2 / 512**2 for edge in (512, 4096)}
    free = [0.0] * 8
    for shard in shards:
        heapq.heapreplace(free, free[0] + sum(row_s[batch.size[0]] * len(batch.prompts) for batch in shard.batches))
    assert sum(free) >= 0.95 * 8 * max(free)


def test_no_more_is_held_back_than_a_quarter_of_what_is_planned_or_two_batches_a_worker(tmp_path: Path) -> None:
    config = make_config(tmp_path, launch__workers=2, output__batches_per_shard=None, job__batch_size=1)
    read = 0

    def batches() -> Iterator[tuple[Prompt, ...]]:
        nonlocal read
        for read in range(1, 20_001):
            yield (make_prompt(str(read)),)

    planned = 0
    for shard in cut_shards(batches(), config):
        assert isinstance(shard, Shard)
        assert read - planned <= max(5, (planned / 4) + MOST_BATCHES)
        assert read - planned <= 2 * 2 * MOST_BATCHES + MOST_BATCHES
        planned += len(shard.batches)
    assert planned == 20_000


def test_rejects_pass_through_at_once_and_are_never_kept_in_memory(tmp_path: Path) -> None:
    def prompts() -> Iterator[Prompt | Reject]:
        yield make_prompt("a")
        yield Reject("prompts.txt", 2, "empty")
        raise AssertionError("read on before the reject was told")

    for size in (None, 2):
        config = make_config(tmp_path, output__batches_per_shard=size)
        assert next(cut_shards(pack_batches(prompts(), 2), config)) == Reject("prompts.txt", 2, "empty")


@pytest.mark.parametrize(("batches", "sizes"), [(0, []), (1, [1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_a_size_set_by_hand_is_that_of_all_shards(tmp_path: Path, batches: int, sizes: list[int]) -> None:
    config = make_config(tmp_path, launch__workers=8, output__batches_per_shard=2)
    stream = cut_shards(((make_prompt(str(one)),) for one in range(batches)), config, first_shard=7)
    shards = [shard for shard in stream if isinstance(shard, Shard)]
    assert [len(shard.batches) for shard in shards] == sizes
    assert [shard.index for shard in shards] == list(range(7, 7 + len(sizes)))
    assert [batch.index for shard in shards for batch in shard.batches] == [at for size in sizes for at in range(size)]
    assert [key for shard in shards for key in shard.keys] == [str(one) for one in range(batches)]


def test_strict_never_lets_the_workers_decide_which_rows_a_batch_holds(tmp_path: Path) -> None:
    prompts = prompts_of(1_100, groups=4)
    whole = sorted(map(str, pack_batches(prompts, 32)))
    for workers in (1, 8):
        shards = cut(tmp_path, prompts, workers, determinism="strict")
        assert sorted(str(batch.prompts) for shard in shards for batch in shard.batches) == whole
