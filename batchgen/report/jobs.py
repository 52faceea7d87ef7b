"""One report of several runs, such as those of a night: sums, and lists in which each entry names its job."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from batchgen.events import seconds_of
from batchgen.report.made import POINTS, SERIES

# Which of several states a night has: the first of these that a job has.
_WORST = ("broken", "running", "unfinished", "done", "empty")
_LISTED = 500  # entries of a list of failures or rejects, over all jobs


def together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of several runs. `run.jobs` has what belongs to one of them; one run alone stays as it is."""
    if len(reports) == 1:
        return reports[0]
    named = list(zip(_names(reports), reports, strict=True))
    began = [one["run"]["began_at"] for one in reports if one["run"]["began_at"]]
    ended = [one["run"]["ended_at"] for one in reports if one["run"]["ended_at"]]
    states = [one["run"]["state"] for one in reports]
    state = next(state for state in _WORST if state in states)
    return {
        **{name: reports[0][name] for name in ("version", "made_at", "batchgen")},
        "run": {
            "name": ", ".join(name for name, _ in named),
            "dir": reports[0]["run"]["dir"],
            "id": None,
            "state": state if state != "done" or "empty" not in states else "unfinished",
            "problems": [f"{name}: {problem}" for name, one in named for problem in one["run"]["problems"]],
            "began_at": min(began, default=None),
            "ended_at": None if "running" in states else max(ended, default=None),
            "jobs": [_job(name, one, reports) for name, one in named],
        },
        "totals": _totals([one["totals"] for one in reports]),
        "workers": _all(named, "workers"),
        "series": _series(named, min(began, default=None)),
        "series_of": sum(one["series_of"] for one in reports),
        **{name: _sum(one[name] for one in reports) for name in ("stages", "waits")},
        **{name: sorted(_all(named, name), key=lambda entry: str(entry["at"])) for name in ("policies", "events")},
        **{name: _listed(named, name) for name in ("failures", "rejects")},
        **{name: _shared([one[name] for one in reports]) for name in ("settings", "versions", "model")},
        "samples": _samples(named),
    }


def _names(reports: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each job; jobs of one name are numbered."""
    names = [one["run"]["name"] for one in reports]
    seen = Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return found


def _job(name: str, report: dict[str, Any], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shared = _shared([one["settings"] for one in reports])
    run = {key: value for key, value in report["run"].items() if key not in ("name", "jobs")}
    own = {key: value for key, value in report["settings"].items() if key not in shared}
    return {
        "name": name, **run, "totals": report["totals"], "settings": own, "versions": report["versions"],
        "model": report["model"],
    }  # fmt: skip


def _shared(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is the same in all of them."""
    return {key: value for key, value in values[0].items() if all(key in one and one[key] == value for one in values)}


def _totals(totals: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums; None where no job has a value. Jobs of a night come one after the other, so their times add up."""
    found: dict[str, Any] = {}
    for name in totals[0]:
        known = [one[name] for one in totals if one[name] is not None]
        found[name] = round(sum(known), 3) if known else None
    images = found["ok"] + found["failed"] + found["filtered"]
    return found | {"images_per_s": round(images / found["wall_s"], 4) if found["wall_s"] and images else None}


def _sum(values: Iterable[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in values:
        for what, seconds in one.items():
            found[what] = round(found.get(what, 0.0) + seconds, 3)
    return found


def _all(named: Sequence[tuple[str, dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    return [{"job": name, **entry} for name, report in named for entry in report[part]]


def _listed(named: Sequence[tuple[str, dict[str, Any]]], part: str) -> dict[str, Any]:
    reasons = Counter[str]()
    for _, report in named:
        for one in report[part]["reasons"]:
            reasons[one["reason"]] += one["count"]
    each = _LISTED // len(named)
    return {
        "count": sum(report[part]["count"] for _, report in named),
        "reasons": [{"reason": reason, "count": count} for reason, count in reasons.most_common()],
        "shown": [{"job": name, **one} for name, report in named for one in report[part]["shown"][:each]],
    }


def _series(named: Sequence[tuple[str, dict[str, Any]]], began_at: str | None) -> list[dict[str, Any]]:
    """The longest series of each job, by one clock, and together no more than `SERIES` and `POINTS`."""
    each = max(1, SERIES // len(named))
    found = []
    for name, report in named:
        own = report["run"]["began_at"]
        later_s = seconds_of(own) - seconds_of(began_at) if own and began_at else 0.0
        longest = sorted(report["series"], key=lambda one: -len(one["t_s"]))[:each]
        found += [{"job": name, **one, "t_s": [round(t_s + later_s, 2) for t_s in one["t_s"]]} for one in longest]
    points = POINTS // max(1, len(found))
    return [_thinned(one, points) for one in found]


def _thinned(one: dict[str, Any], points: int) -> dict[str, Any]:
    """A series with at most so many points; of those that go, the highest value stays."""
    step = -(-len(one["t_s"]) // max(1, points))
    if step <= 1:
        return one
    starts = range(0, len(one["t_s"]), step)
    return {
        name: [max((value for value in values[at : at + step] if value is not None), default=None) for at in starts]
        if isinstance(values, list)
        else values
        for name, values in one.items()
    }


def _samples(named: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    parts = [report["samples"] for _, report in named]
    return {
        "of": sum(one["of"] for one in parts),
        "shown": sum(one["shown"] for one in parts),
        "columns": list(dict.fromkeys(name for one in parts for name in one["columns"])),
        "items": [{"job": name, **one} for name, report in named for one in report["samples"]["items"]],
    }
