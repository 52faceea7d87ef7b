"""All that a report states of a run, from what is on the disk: it takes no lease and changes nothing.

Whatever is torn, gone or not there yet is left out and told in `problems`, so that there is a report of any run. The
form is a contract with the page that shows it; `VERSION` counts up when a field gets another name or meaning.
"""

import shlex
import time
from dataclasses import dataclass, field
from typing import Any

from batchgen import __version__
from batchgen.errors import BatchgenError, BrokenRunError
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, load_plan
from batchgen.report.facts import iso, made_with, most_common, rejects, stays_of, totals, waits, workers
from batchgen.report.listing import Listed, Listing
from batchgen.report.made import Tally, series
from batchgen.report.picks import Picks, clean, column_names, failure, items_of, picked
from batchgen.report.told import Stay, Told, in_order, read_told
from batchgen.shards.crew import Crew, read_crew
from batchgen.shards.journal import read_journal
from batchgen.shards.leases import Watch

VERSION = 1
_PROBLEMS = 50
_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Gathered:
    """A report without its pictures, and the images of `samples.items`, in the same order."""

    report: dict[str, Any]
    shown: list[Listed]


@dataclass(slots=True)
class _Seen:
    """What is found of a run's images and units."""

    picks: Picks = field(default_factory=Picks)
    tally: Tally = field(default_factory=Tally)
    tar_bytes: int = 0
    shards: int = 0
    problems: list[str] = field(default_factory=list)


def gather(run: RunDir, shown: int) -> Gathered:
    """What there is to report of a run, with at most `shown` images. Raises UserError where there is no run."""
    told, seen = read_told(run), _Seen()
    try:
        plan = load_plan(run)
    except BrokenRunError as error:
        return Gathered(_without_plan(run, told, seen, str(error)), [])
    listing = Listing(plan, under_way=True)
    for shard in range(plan.shard_count):
        _look(listing, shard, seen)
    images, failures = picked(listing, seen.picks, shown)
    seen.problems += dict.fromkeys(listing.problems)
    crew = _crew(plan, seen)
    stays, state = stays_of(told, seen.tally), _state(plan, seen, crew)
    items = items_of(images, [_extract(run, one) for one in images])
    sums = {"shards": plan.shard_count, "shards_done": seen.shards, "bytes": seen.tar_bytes}
    price = plan.config.price_per_gpu_hour
    report = {
        **_head(run, plan.planned.job.name, plan.run_id, state, seen.problems, stays),
        "totals": totals(plan.images, seen.picks, seen.tally, stays, price) | sums,
        "workers": workers(seen.tally, crew),
        **_over_time(told, seen, stays),
        "failures": {
            "count": seen.picks.bad.count,
            "reasons": most_common(seen.picks.reasons),
            "shown": [failure(one) for one in failures],
        },
        "rejects": rejects(plan),
        **made_with(plan),
        "samples": {"of": plan.images, "shown": len(items), "columns": column_names(items), "items": items},
    }
    return Gathered(report, images)


def _without_plan(run: RunDir, told: Told, seen: _Seen, problem: str) -> dict[str, Any]:
    """What the logs alone tell."""
    stays = stays_of(told, seen.tally)
    sums = {"shards": 0, "shards_done": 0, "bytes": 0}
    none = {"count": 0, "reasons": [], "shown": []}
    return {
        **_head(run, run.root.absolute().name, None, "broken", [problem], stays),
        "totals": totals(0, seen.picks, seen.tally, stays, None) | sums,
        "workers": [],
        **_over_time(told, seen, stays),
        "failures": none,
        "rejects": none,
        "settings": {},
        "versions": {},
        "model": {},
        "samples": {"of": 0, "shown": 0, "columns": [], "items": []},
    }


def _look(listing: Listing, shard: int, seen: _Seen) -> None:
    held = listing.held(shard)
    if held is None:
        return
    seen.tar_bytes += held.tar_bytes
    seen.shards += not held.under_way
    for record in held.samples:
        if listing.owns(shard, record["key"]):
            seen.picks.add(shard, record["key"], record["status"], record.get("reason"))
    try:
        journal = read_journal(held.log)
    except OSError:
        return  # the log is for people; the images count without it
    seen.tally.add(journal.records if journal else ())


def _crew(plan: Plan, seen: _Seen) -> Crew | None:
    try:
        return read_crew(plan.run, Watch(plan.config.launch.lease_timeout_s))
    except (BatchgenError, OSError) as error:
        seen.problems.append(f"what the workers do cannot be read: {error}")
        return None


def _state(plan: Plan, seen: _Seen, crew: Crew | None) -> str:
    if seen.problems:
        return "broken"
    if seen.shards == plan.shard_count:
        return "done"
    if crew is not None and (crew.at_work or any(one.state in ("loading", "waiting") for one in crew.members)):
        return "running"
    return "unfinished" if seen.picks.counts else "empty"


def _head(
    run: RunDir, name: str, run_id: str | None, state: str, problems: list[str], stays: dict[str, Stay]
) -> dict[str, Any]:
    began_s = min((stay.began_s for stay in stays.values()), default=None)
    ended_s = None if state == "running" else max((stay.ended_s for stay in stays.values()), default=None)
    facts = {
        "name": clean(name, _TEXT),
        "dir": clean(str(run.root.absolute()), _TEXT),
        "id": run_id,
        "state": state,
        "problems": [clean(one, _TEXT) for one in problems[:_PROBLEMS]],
        "began_at": iso(began_s),
        "ended_at": iso(ended_s),
        "jobs": [],
    }
    return {"version": VERSION, "made_at": iso(time.time()), "batchgen": __version__, "run": facts}


def _over_time(told: Told, seen: _Seen, stays: dict[str, Stay]) -> dict[str, Any]:
    tally = seen.tally
    began_s = min((stay.began_s for stay in stays.values()), default=0.0)
    return {
        "series": series(list(tally.workers.values()), began_s),
        "series_of": len(tally.workers),
        "stages": {name: round(tally.stages[name], 3) for name in ("encode", "denoise", "decode", "write")},
        "waits": waits(told, tally, stays),
        "policies": in_order(told.policies),
        "events": in_order(told.events),
    }


def _extract(run: RunDir, one: Listed) -> str | None:
    """The command that writes an image out; None for one that is not in a shard's tar yet."""
    if one.status != "ok" or (one.tar is not None and one.tar.parent == run.work):
        return None
    return f"python -m batchgen.export {shlex.quote(str(run.root.absolute()))} {one.prompt.key} to=."
