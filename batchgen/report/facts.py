"""The parts of a report that are sums and lists over a run: totals, workers, waits, rejects, versions."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from batchgen.config.schema import flatten
from batchgen.plan.store import Plan
from batchgen.report.made import Tally, pauses_s
from batchgen.report.picks import Picks, clean
from batchgen.report.told import Stay, Told
from batchgen.shards.crew import Crew, Member

_WORKERS, _REASONS, _REJECTS = 500, 50, 500
_TEXT = 300  # characters


def stays_of(told: Told, tally: Tally) -> dict[str, Stay]:
    """When each worker was there: by its log, and where that is gone by its units."""
    stays = dict(told.stays)
    for name, made in tally.workers.items():
        stay = stays.get(name, Stay(made.began_s, made.ended_s, left=False))
        stays[name] = Stay(min(stay.began_s, made.began_s), max(stay.ended_s, made.ended_s), stay.left)
    return stays


def totals(
    planned: int, picks: Picks, tally: Tally, stays: dict[str, Stay], price_per_gpu_hour: float | None
) -> dict[str, Any]:
    """How many images there are by what became of them, and in what time. A worker on the CPU costs nothing."""
    counts = picks.counts
    wall_s = _covered_s(stays.values())
    on_device = [name for name, made in tally.workers.items() if not made.on_host]
    gpu_hours = sum(stays[name].ended_s - stays[name].began_s for name in on_device) / 3600 if on_device else None
    images = sum(worker.images for worker in tally.workers.values())
    return {
        "planned": planned,
        **{status: counts[status] for status in ("ok", "failed", "filtered")},
        "open": max(0, planned - sum(counts.values())),
        "workers": len(stays),
        "wall_s": round(wall_s, 1),
        "device_s": round(sum(stay.ended_s - stay.began_s for stay in stays.values()), 1),
        "images_per_s": round(images / wall_s, 4) if wall_s and images else None,
        "ooms": tally.ooms,
        "retries": tally.retries,
        "gpu_hours": None if gpu_hours is None else round(gpu_hours, 3),
        "cost": round(gpu_hours * price_per_gpu_hour, 2) if gpu_hours is not None and price_per_gpu_hour else None,
    }


def _covered_s(stays: Collection[Stay]) -> float:
    """The seconds in which at least one worker was there."""
    covered_s, until_s = 0.0, float("-inf")
    for stay in sorted(stays, key=lambda stay: stay.began_s):
        covered_s += max(0.0, stay.ended_s - max(until_s, stay.began_s))
        until_s = max(until_s, stay.ended_s)
    return covered_s


def workers(tally: Tally, crew: Crew | None) -> list[dict[str, Any]]:
    """What each worker made and what it does now, those that made most first. `crew`: None where it is not known."""
    members = {member.worker: member for member in (crew.members if crew else ())}
    found = [_worker(name, tally, members.get(name)) for name in {*tally.workers, *members}]
    found.sort(key=lambda worker: (-worker["images"], worker["id"]))
    return found[:_WORKERS]


def _worker(name: str, tally: Tally, member: Member | None) -> dict[str, Any]:
    made = tally.workers.get(name)
    images, busy_s = (made.images, made.busy_s) if made else (0, 0.0)
    who = made or member
    return {
        "id": name,
        "host": who.host if who else None,
        "device": who.device if who else None,
        "images": images,
        "busy_s": round(busy_s, 2),
        "images_per_s": round(images / busy_s, 4) if busy_s else None,
        "state": clean(member.does, _TEXT) if member else None,
    }


def waits(told: Told, tally: Tally, stays: dict[str, Stay]) -> dict[str, float]:
    """What the devices waited for, in seconds over all workers, as far as logs and memory logs tell."""
    found = dict(told.waits)
    made = [(one, stays[name]) for name, one in tally.workers.items()]
    found["image files, the disk and all else between the stages"] = sum(one.between_s for one, _ in made)
    found["between two units (committing shards, taking the next one)"] = sum(pauses_s(one) for one, _ in made)
    after = (max(0.0, stay.ended_s - one.ended_s) for one, stay in made if stay.left)
    found["other workers, after the last image"] = sum(after)
    most = sorted(found.items(), key=lambda entry: -entry[1])
    return {what: round(seconds, 2) for what, seconds in most if seconds >= 1.0}


def rejects(plan: Plan) -> dict[str, Any]:
    """The rows that could not be used: how many, why, and the first of them."""
    shown: list[dict[str, Any]] = []
    reasons = Counter[str]()
    for reject in _rejected(plan):
        reasons[reject["reason"]] += 1
        if len(shown) < _REJECTS:
            shown.append(reject)
    count = sum(segment.rejects for segment in plan.segments)
    return {"count": count, "reasons": most_common(reasons), "shown": shown}


def _rejected(plan: Plan) -> Iterator[dict[str, Any]]:
    for segment in plan.segments:
        try:
            with segment.files.rejects.open("rb") as file:
                for line in file:
                    reject = json.loads(line)
                    source, reason = (clean(str(reject[name]), _TEXT) for name in ("file", "reason"))
                    yield {"file": source, "line": int(reject["line"]), "reason": reason}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the list is for people; nothing depends on it


def most_common(reasons: Counter[str]) -> list[dict[str, Any]]:
    """Reasons with how often there were, the most frequent first."""
    return [{"reason": reason, "count": count} for reason, count in reasons.most_common(_REASONS)]


def made_with(plan: Plan) -> dict[str, Any]:
    """The settings, the versions and the model of a run."""
    try:
        versions = dict(json.loads(plan.segments[0].files.facts.read_bytes()).get("versions", {}))
    except (OSError, ValueError):
        versions = {}
    model = plan.planned.model
    facts = {"path": model.path, "revision": model.revision, "fingerprint": str(plan.recipe["model"])}
    facts |= {"dtype": model.dtype, "scheduler": plan.planned.job.scheduler}
    return {"settings": flatten(asdict(plan.config)), "versions": versions, "model": facts}


def iso(seconds: float | None) -> str | None:
    """A time in s since the epoch, as a report states it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
