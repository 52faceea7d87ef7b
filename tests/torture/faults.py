"""Every durable operation of a run made to fail, one at a time: `python -m tests.torture.faults FOLDER EVERY [FIRST]`.

Prints one JSON object: how many operations and cases, and what went wrong in which.
"""

import collections
import json
import sys
import time
from pathlib import Path

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE
from tests.torture import commands, watch
from tests.torture.commands import FULL_LINE, IMAGES, command, committed_files, empty, left_behind, tars, wrongs

# What an operation can be made to do besides failing: which kinds there is a point in.
_KINDS = {"short": {"write"}, "lost": {"link"}, "late": {"create", "fsync", "link", "rename", "unlink", "mkdir"}}


class Faults:
    """The cases of one folder, and what an undisturbed run is like."""

    def __init__(self, folder):
        self.config = commands.set_up(folder)
        self._base = folder / "disk"
        self._run = self._base / "outputs" / "run"
        empty(self._base)
        log = folder / "undisturbed.log"
        log.unlink(missing_ok=True)
        watch.begin(self._base, log=log)
        ended = command(self.config, self._run)
        self.operations = watch.operations()
        self.tars = tars(self._run)
        assert ended.code == EXIT_WHOLE and wrongs(self._run, self.tars) == [], ended
        events = [json.loads(line) for line in log.read_text().splitlines()]
        self.kinds = [event[1] if event[0] == "failed" else event[0] for event in events if event[0] != "mark"]
        assert len(self.kinds) == self.operations

    def cases(self, every, first=0):
        """(mode, number) of each case: with `every` above 1 a sample from the `first` on, the modes taking turns."""
        wanted = [
            (mode, number)
            for number in range(self.operations)
            for mode in watch.MODES
            if self.kinds[number] in _KINDS.get(mode, {self.kinds[number]})
        ]
        return wanted[first::every]

    def try_one(self, mode, number, links=True):
        """What is wrong after operation `number` does what `mode` says; empty when nothing is."""
        empty(self._base)
        watch.begin(self._base, mode, number, links=links)
        ended = command(self.config, self._run)
        found = [] if mode == "kill" else self._how_it_ended(mode, ended)
        if ended.code == EXIT_WHOLE:
            found += [f"said to be whole: {wrong}" for wrong in wrongs(self._run, self.tars)]
        committed = committed_files(self._run)
        rows = watch.images_made()
        watch.begin(self._base, links=links)
        again = command(self.config, self._run)
        found += [f"again: {problem}" for problem in again.problems((EXIT_WHOLE,))]
        found += wrongs(self._run, self.tars)
        found += [f"{name} is left" for name in left_behind(self._run)]
        later = committed_files(self._run)
        found += [f"committed {name} changed" for name, data in committed.items() if later.get(name) != data]
        twice = rows + watch.images_made() - IMAGES
        # Of one batch, or of two where a fault of a worker was followed by another one's.
        found += [f"{twice} images were made twice"] if twice > (2 if mode not in watch.ONCE else 4) else []
        return found

    def _how_it_ended(self, mode, ended):
        found = ended.problems((EXIT_WHOLE, EXIT_BROKEN, EXIT_INTERRUPTED))
        full_lines = len(FULL_LINE.findall(ended.stderr))
        if mode.removeprefix("full:") in ("ENOSPC", "EDQUOT"):
            # The front command says it for itself where the worker had committed all: it finishes the run alone.
            if ended.code != EXIT_WHOLE and (ended.code != EXIT_INTERRUPTED or not 1 <= full_lines <= 2):
                found.append(f"a full disk ended with {ended.code} and was said {full_lines} times: {ended.stderr}")
        elif full_lines:
            found.append("a disk that is not full is said to be")
        return found


def main():
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    started = time.monotonic()
    faults = Faults(folder)
    problems = []
    count: collections.Counter[str] = collections.Counter()
    for mode, number in faults.cases(every, first):
        count[mode] += 1
        found = faults.try_one(mode, number)
        problems += [f"{mode} at {number} ({faults.kinds[number]}): {'; '.join(found)}"] if found else []
    print(json.dumps({
        "operations": faults.operations, "cases": count.total(), "modes": count, "problems": problems,
        "seconds": round(time.monotonic() - started, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
