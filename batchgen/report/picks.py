"""Which images are shown: evenly chosen over the run, always the same ones, in one pass whatever their number."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from batchgen.files import to_json
from batchgen.report.listing import Listed, Listing

T = TypeVar("T")
SHOWN = 1000  # pictures and failures together
FAILURES_LISTED = 500
_COLUMNS = 40
_REASON = 300  # characters
_ITEMS_BYTES = 4_000_000  # of the shown images, without their pictures


class _Cut(NamedTuple):
    """How many characters are left of a text and of a column, and how many columns of a row."""

    text: int
    column: int
    columns: int


_CUTS = (_Cut(2000, 300, _COLUMNS), _Cut(600, 100, 20), _Cut(200, 60, 8), _Cut(60, 20, 4))


class Even(Generic[T]):
    """Keeps about `most` of the items that come, evenly spread over all of them: each second one, then each fourth."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._step = 1
        self._kept: list[T] = []
        self.count = 0

    def add(self, item: T) -> None:
        """An item comes."""
        if self.count % self._step == 0:
            self._kept.append(item)
            if len(self._kept) >= 2 * self._most:
                self._kept = self._kept[::2]
                self._step *= 2
        self.count += 1

    def picked(self, most: int) -> list[T]:
        """So many of the items, or all if there are fewer."""
        return even(self._kept, most)


def even(items: list[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread, in order."""
    if len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


@dataclass(slots=True)
class Picks:
    """What became of all images of a run, and some of them: (shard, key) of good ones and of others."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    good: Even[tuple[int, str]] = field(default_factory=lambda: Even(SHOWN))
    bad: Even[tuple[int, str]] = field(default_factory=lambda: Even(FAILURES_LISTED))

    def add(self, shard: int, key: str, status: str, reason: str | None) -> None:
        """An image: what became of it."""
        self.counts[status] += 1
        if status == "ok":
            self.good.add((shard, key))
        else:
            self.bad.add((shard, key))
            self.reasons[clean(str(reason), _REASON)] += 1


def picked(listing: Listing, picks: Picks, shown: int) -> tuple[list[Listed], list[Listed]]:
    """The images to show, a fifth of them failures at most, and the failures to list, in plan order."""
    listed = picks.bad.picked(FAILURES_LISTED)
    bad = even(listed, shown // 5)
    wanted = {*picks.good.picked(shown - len(bad)), *bad}
    by_shard: dict[int, set[str]] = {}
    for shard, key in [*wanted, *listed]:
        by_shard.setdefault(shard, set()).add(key)
    found = [one for shard in sorted(by_shard) for one in listing.images(shard, by_shard[shard])]
    shows, lists = wanted, set(listed)
    return (
        [one for one in found if (one.shard, one.prompt.key) in shows],
        [one for one in found if (one.shard, one.prompt.key) in lists],
    )


def clean(text: str, most: int) -> str:
    """A text of others as it may be shown: not too long, and without halves of characters, which no file can hold."""
    cut = text if len(text) <= most else f"{text[:most]} ..."
    return cut.encode("utf-8", "replace").decode()


def items_of(images: Sequence[Listed], extracts: Sequence[str | None]) -> list[dict[str, Any]]:
    """The images as a report states them, their texts cut as far as it takes to keep all within `_ITEMS_BYTES`.

    `extracts`: the commands that write the images out, None where there is none.
    """
    found: list[dict[str, Any]] = []
    for cut in _CUTS:
        found = [_item(one, extract, cut) for one, extract in zip(images, extracts, strict=True)]
        text = to_json(found)
        if len(text) + 5 * sum(text.count(mark) for mark in "<>&") <= _ITEMS_BYTES:  # a page escapes these
            break
    return found


def _item(one: Listed, extract: str | None, cut: "_Cut") -> dict[str, Any]:
    prompt = one.prompt
    return {
        "key": prompt.key,
        "prompt": clean(prompt.prompt, cut.text),
        "negative_prompt": clean(prompt.negative_prompt, cut.text),
        "seed": prompt.seed,
        "width": prompt.width,
        "height": prompt.height,
        "steps": prompt.steps,
        "guidance": prompt.guidance,
        "status": one.status,
        "reason": None if one.reason is None else clean(one.reason, _REASON),
        "shard": f"{one.shard:06d}.tar",
        "member": one.member if one.status == "ok" else None,
        "extract": extract,
        "columns": dict(_columns(prompt.extra, cut)),
    }


def failure(one: Listed) -> dict[str, Any]:
    """A failed image as the list of failures states it."""
    reason = None if one.reason is None else clean(one.reason, _REASON)
    prompt = clean(one.prompt.prompt, _REASON)
    return {"key": one.prompt.key, "prompt": prompt, "reason": reason, "shard": f"{one.shard:06d}.tar"}


def _columns(extra: dict[str, Any], cut: _Cut) -> Iterator[tuple[str, str]]:
    for name, value in list(extra.items())[: cut.columns]:
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield clean(str(name), cut.column), clean(text, cut.column)


def column_names(items: list[dict[str, Any]]) -> list[str]:
    """The names of the columns that the items have, those that most have first."""
    found = Counter(name for one in items for name in one["columns"])
    return [name for name, _ in found.most_common(_COLUMNS)]
