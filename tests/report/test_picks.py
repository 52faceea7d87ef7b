"""Which images are shown: evenly spread, reproducible, with failures among them, and within a bound of bytes."""

import json

import pytest

from batchgen.report.listing import Listed, Listing
from batchgen.report.picks import Even, Picks, clean, column_names, even, failure, items_of, picked
from tests.builders import finish_run, make_prompt, plan_run


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 25, 999, 12_345])
def test_what_is_kept_is_evenly_spread(count):
    kept = Even[int](10)
    for item in range(count):
        kept.add(item)
    found = kept.picked(10)
    assert len(found) == min(10, count)
    assert found == sorted(set(found))
    gaps = [after - before for before, after in zip(found, found[1:], strict=False)]
    assert max(gaps, default=0) <= 2 * max(1, count / 10)
    assert kept.count == count


def test_even_keeps_order_and_all_where_there_are_few():
    assert even([3, 1, 2], 5) == [3, 1, 2]
    assert even(list(range(10)), 3) == [0, 3, 6]


def test_failures_are_among_the_shown_and_the_good_ones_are_most(tmp_path):
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(40)])
    bad = {f"{row:012d}-00" for row in range(0, 40, 2)}
    finish_run(plan, failed=bad)
    listing, picks = Listing(plan), Picks()
    for shard in range(plan.shard_count):
        held = listing.held(shard)
        assert held is not None
        for one in held.samples:
            picks.add(shard, one["key"], one["status"], one.get("reason"))
    assert picks.counts == {"ok": 20, "failed": 20}
    shown, failures = picked(listing, picks, 10)
    assert [one.status for one in shown].count("failed") == 2
    assert len(shown) == 10
    assert {one.prompt.key for one in failures} == bad
    assert (shown, failures) == picked(Listing(plan), picks, 10)


def test_texts_are_cut_and_can_be_written():
    assert clean("x" * 11, 10) == "x" * 10 + " ..."
    assert clean("a\ud800b", 10).encode() == b"a?b"


def test_an_item_says_all_of_an_image():
    prompt = make_prompt(extra={"subject": "fox", "score": 1.5, "tags": ["a", "ä"], "none": None})
    (found,) = items_of([Listed(prompt, 3, "ok", None, "000000000000-00.png", "f0")], ["export it"])
    assert found == {
        "key": prompt.key, "prompt": prompt.prompt, "negative_prompt": "", "seed": 7, "width": 64, "height": 64,
        "steps": 2, "guidance": 7.5, "status": "ok", "reason": None, "shard": "000003.tar",
        "member": "000000000000-00.png", "extract": "export it",
        "columns": {"subject": "fox", "score": "1.5", "tags": '["a", "ä"]'},
    }  # fmt: skip
    assert column_names([found, {"columns": {"score": "2"}}]) == ["score", "subject", "tags"]
    (failed,) = items_of([Listed(prompt, 3, "failed", "black", "x.png")], [None])
    assert (failed["member"], failed["reason"]) == (None, "black")
    assert failure(Listed(prompt, 3, "failed", "black", "x.png")) == {
        "key": prompt.key, "prompt": prompt.prompt, "reason": "black", "shard": "000003.tar",
    }  # fmt: skip


def test_a_thousand_long_texts_stay_within_the_bound():
    hostile = "<&" * 1000
    extra = {f"column {number} {hostile}": hostile for number in range(200)}
    listed = [Listed(make_prompt(prompt=hostile, negative_prompt=hostile, extra=extra), 0, "ok", None, "a")] * 1000
    found = items_of(listed, [None] * 1000)
    text = json.dumps(found).replace("<", "\\u003c").replace("&", "\\u0026")
    assert len(text) < 4_500_000
    assert found[0]["prompt"].startswith("<&<&")
