"""The table of workers: at most twenty, those that ask for attention first, then counts."""

from dataclasses import replace

from batchgen.shards.crew import Crew, Member
from batchgen.shards.roster import kinds_line, roster

WORKING = Member("node1-0-a", "node1", "working", "working on shard 7", "H200", None, 7, 0.5, 3.0)
LOADING = Member("node2-0-b", "node2", "loading", "loading the model", None)


def crew(*members: Member, unread: int = 0) -> Crew:
    return Crew(members, frozenset(), {}, (), unread, 0.0)


def test_a_row_says_who_does_what_how_fast_and_when_it_was_seen() -> None:
    head, first, second = roster(crew(LOADING, WORKING))
    assert " ".join(head.split()) == "worker host device images/s last sign does"
    assert "loading the model" in first and "no lease" in first
    assert " ".join(second.split()) == "node1-0-a node1 H200 0.50 3s ago working on shard 7"
    assert "17_2" in roster(crew(replace(WORKING, element="17_2")))[1]


def test_twenty_are_listed_and_the_others_are_counted() -> None:
    members = [replace(WORKING, worker=f"w{place}") for place in range(300)]
    lines = roster(crew(*members, *[replace(WORKING, state="ended", does="ended")] * 3, unread=2))
    assert len([line for line in lines if "shard 7" in line]) == 20
    assert "and 280 workers more: 280 working" in lines
    assert "3 workers left: 3 ended" in lines and "2 logs of workers were not read" in lines


def test_workers_that_were_replaced_are_only_counted() -> None:
    [line] = roster(crew(replace(WORKING, state="crashed", is_replaced=True)))
    assert line == "1 earlier worker had others started in their place"


def test_mixed_devices_are_named() -> None:
    other = replace(WORKING, device="L40S")
    line = kinds_line([WORKING, WORKING, other])
    assert line is not None and "2 x H200, 1 x L40S" in line and "only within a kind of device" in line
    assert kinds_line([WORKING, WORKING, LOADING]) is None
    assert kinds_line([WORKING, replace(other, state="ended")]) is None
