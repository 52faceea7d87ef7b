"""The workers of a run as a table for people."""

from collections import Counter
from collections.abc import Sequence

from batchgen.shards.crew import AT_WORK, STATES, Crew, Member
from batchgen.units import count, duration

_LISTED = 20
_LEFT = ("drained", "ended")
_HEADS = ("worker", "element", "host", "device", "images/s", "last sign", "does")


def roster(crew: Crew) -> list[str]:
    """The lines: the workers that have not left, those that ask for attention first, and how many others there are."""
    current = [one for one in crew.members if not one.is_replaced]
    wanted = [one for one in current if one.state not in _LEFT]
    listed, rest = wanted[:_LISTED], wanted[_LISTED:]
    lines = _table(listed) if listed else []
    if rest:
        lines.append(f"and {count(len(rest), 'worker')} more: {_by_state(rest)}")
    if left := [one for one in current if one.state in _LEFT]:
        lines.append(f"{count(len(left), 'worker')} left: {_by_state(left)}")
    if replaced := len(crew.members) - len(current):
        lines.append(f"{count(replaced, 'earlier worker')} had others started in their place")
    if crew.unread:
        lines.append(f"{count(crew.unread, 'log')} of workers were not read")
    return lines + [line for line in [kinds_line(current)] if line is not None]


def kinds_line(members: Sequence[Member]) -> str | None:
    """What follows from several kinds of devices at work, in one line; None where there is one kind."""
    kinds = Counter(one.device for one in members if one.device and one.state in AT_WORK)
    if len(kinds) < 2:
        return None
    said = ", ".join(f"{number} x {kind}" for kind, number in kinds.most_common())
    return f"mixed devices ({said}): images are the same bit for bit only within a kind of device"


def _by_state(members: Sequence[Member]) -> str:
    found = Counter(one.state for one in members)
    return ", ".join(f"{found[state]} {state}" for state in STATES if state in found)


def _table(members: Sequence[Member]) -> list[str]:
    rows = [_HEADS, *(_row(one) for one in members)]
    kept = [place for place, head in enumerate(_HEADS) if head != "element" or any(one.element for one in members)]
    widths = {place: max(len(row[place]) for row in rows) for place in kept}
    return ["  " + "  ".join(f"{row[place]:<{widths[place]}}" for place in kept).rstrip() for row in rows]


def _row(member: Member) -> tuple[str, ...]:
    speed = "" if member.images_per_s is None else f"{member.images_per_s:.2f}"
    seen = "no lease" if member.seen_s is None else f"{duration(member.seen_s)} ago"
    return (member.worker, member.element or "", member.host, member.device or "", speed, seen, member.does)
