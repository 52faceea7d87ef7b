"""Power cuts: `python -m tests.torture.power FOLDER STATES` tries states, `... FOLDER mutations` takes out fsyncs.

Runs are recorded: one undisturbed, one whose worker is killed and started again, one that is killed whole and gone
on with. A state of the disk after a cut is built in a directory of its own, and the same command must go on from it.
Prints one JSON object.
"""

import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from batchgen.errors import EXIT_WHOLE
from tests.torture import commands, watch
from tests.torture.commands import IMAGES, command, empty, tars, wrongs
from tests.torture.disk import Disk, build, read_events

WAYS = ("all", "none", "torn", "zeros", "holes")
# How likely an entry of a directory that is not durable is there: from none of them to all.
_LASTING = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
_CUTS_PER_SITE = 60


class Power:
    """Recorded runs in a folder, and the trying of states."""

    def __init__(self, folder):
        self._config = commands.set_up(folder)
        self._folder = folder
        self._record_base = folder / "recorded"
        self._base = folder / "disk"
        undisturbed = self._record("undisturbed")
        self.tars = tars(self._record_base / "outputs" / "run")
        places = [place for place, event in enumerate(_operations(undisturbed)) if event[0] == "fsync"]
        sites = [_operations(undisturbed)[place][2] for place in places]
        after_append = places[sites.index("shards.attempt.append work/*.jsonl")] + 2
        in_publish = places[sites.index("shards.attempt.publish run/shards")]
        in_plan = places[sites.index("plan.store.save_plan outputs/run")]
        self.recordings = {
            "undisturbed": undisturbed,
            "worker killed": self._record("worker_killed", ("kill worker", after_append)),
            "killed in a shard": self._record("killed_in_shard", ("kill", after_append)),
            "killed in publish": self._record("killed_in_publish", ("kill", in_publish)),
            "killed in the plan": self._record("killed_in_plan", ("kill", in_plan)),
        }

    def _record(self, name, kill=()):
        run = empty(self._record_base) / "outputs" / "run"
        log = self._folder / f"{name}.log"
        log.unlink(missing_ok=True)
        if kill:
            mode, at = kill
            watch.begin(self._record_base, mode, at, log)
            command(self._config, run)
        if not kill or kill[0] == "kill":
            watch.begin(self._record_base, log=log)
            ended = command(self._config, run)
            assert ended.code == EXIT_WHOLE, ended
        assert wrongs(run, self.tars if kill else tars(run)) == []
        return read_events(log)

    def try_state(self, tree, appended):
        """What is wrong when the same command finds this on the disk; `appended` was promised to be there."""
        run = empty(self._base) / "outputs" / "run"
        build(tree, self._base)
        watch.begin(self._base)
        ended = command(self._config, run)
        found = ended.problems((EXIT_WHOLE,)) + wrongs(run, self.tars)
        lost = watch.images_made() - (IMAGES - sum(appended.values()))
        return found + ([f"{lost} images that were on the disk had to be made again"] if lost > 0 else [])

    def random_states(self, count, seed=20):
        """(name, tree, rows promised) of `count` different states, over all recordings."""
        chosen = random.Random(seed)
        names = list(self.recordings)
        seen: set[bytes] = set()
        while len(seen) < count:
            name = names[0] if chosen.random() < 0.4 else chosen.choice(names[1:])
            events = self.recordings[name]
            cut = chosen.randrange(1, len(events) + 1)
            disk = _play(events, cut, self._record_base)
            ways = WAYS if chosen.random() < 0.6 else (chosen.choice(WAYS),)
            tree = disk.tree(chosen, chosen.choice(_LASTING), ways)
            if (digest := _digest(tree, disk)) not in seen:
                seen.add(digest)
                yield f"{name}, cut after event {cut}", tree, disk.appended

    def sites(self):
        """Every place in batchgen that asks for an fsync, over all recordings."""
        return sorted({event[2] for events in self.recordings.values() for event in events if event[0] == "fsync"})

    def catch(self, site):
        """A state that is wrong if the fsyncs of `site` do nothing, and how many states were tried for it."""
        chosen = random.Random(site)
        states: dict[bytes, tuple] = {}
        for name, events in self.recordings.items():
            disk = Disk(self._record_base)
            missed = set()  # what should be durable and is not
            for cut, event in enumerate(events, 1):
                if event[0] == "fsync" and event[2] == site:
                    missed.add(event[1])
                    continue
                disk.play(event)
                nodes = {id(disk._open[handle]): disk._open[handle] for handle in missed}
                for node in nodes.values():
                    if node.is_dirty():
                        for way, lasting in (("none", 0.0), ("zeros", 0.5), ("torn", 0.5)):
                            tree = disk.tree(chosen, lasting, (way,), lost=node)
                            state = (f"{name}, cut after event {cut}", tree, dict(disk.appended))
                            states.setdefault(_digest(tree, disk), state)
        tried = list(states.values())
        chosen.shuffle(tried)
        # Some of those first that lost most: that a whole directory is gone is few states, and easily missed.
        tried = sorted(tried, key=lambda state: len(state[1]))[: _CUTS_PER_SITE // 4] + tried
        for count, (name, tree, appended) in enumerate(tried[:_CUTS_PER_SITE], 1):
            if found := self.try_state(tree, appended):
                return count, f"{name}: {found[0][:200]}"
        return min(len(tried), _CUTS_PER_SITE), None


def _operations(events):
    return [event for event in events if event[0] != "mark"]


def _play(events, cut, base):
    disk = Disk(base)
    for event in events[:cut]:
        disk.play(event)
    return disk


def _digest(tree, disk):
    digest = hashlib.sha256(repr(sorted(disk.appended.items())).encode())
    for path, data in tree.items():
        digest.update(f"{path}\0{data is None}{len(data or b'')}\0".encode() + (data or b""))
    return digest.digest()


def main():
    folder, what = Path(sys.argv[1]), sys.argv[2]
    started = time.monotonic()
    power = Power(folder)
    result: dict[str, Any] = {"events": {name: len(events) for name, events in power.recordings.items()}}
    if what == "mutations":
        result["sites"] = {site: power.catch(site) for site in power.sites()}
    else:
        problems = []
        for name, tree, appended in power.random_states(int(what)):
            found = power.try_state(tree, appended)
            problems += [f"{name}: {'; '.join(found)}"] if found else []
        result |= {"states": int(what), "problems": problems}
    print(json.dumps(result | {"seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
