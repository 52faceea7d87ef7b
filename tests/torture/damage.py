"""Bits flipped and ends cut off, anywhere in a finished run: `python -m tests.torture.damage FOLDER FLIPS EVERY_BYTES`.

Every damage must be named by verify, which changes nothing, and no image may count as good that is not. Prints JSON.
"""

import json
import random
import sys
import time
from pathlib import Path

from batchgen.errors import BatchgenError
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.verify import verify
from tests.torture import commands, watch

# What a run proves itself by. Workers' logs and leases prove nothing; policies are for the next images.
PROOF = ("plan/*", "shards/*", "logs/memory/*", "index.json")


def notices(root):
    """Whether verify says that something is wrong, in its own words."""
    try:
        findings = verify(load_plan(RunDir(root)))
    except BatchgenError:
        return True
    return bool(findings.problems or findings.warnings or findings.missing_shards)


class Damages:
    """A finished run, and what is done to it."""

    def __init__(self, folder):
        config = commands.set_up(folder)
        self.root = folder / "disk" / "outputs" / "run"
        commands.empty(folder / "disk")
        watch.begin(folder / "disk")
        assert commands.command(config, self.root).code == 0
        assert not notices(self.root)
        files = sorted(path for pattern in PROOF for path in self.root.glob(pattern))
        # rejects.jsonl is empty here, and has no bit to flip.
        self.files = [path for path in files if path.is_file() and path.stat().st_size]
        self.unnoticed = []

    def flips(self, count):
        """One bit each, files taking turns."""
        rng = random.Random(5)
        for number in range(count):
            path = self.files[number % len(self.files)]
            whole = path.read_bytes()
            at, bit = rng.randrange(len(whole)), rng.randrange(8)
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            self._try(path, whole, damaged, f"bit {bit} of byte {at}")

    def cuts(self, every_bytes):
        """Each file cut off at every multiple of so many bytes; how many cuts."""
        count = 0
        for path in self.files:
            whole = path.read_bytes()
            for size in range(0, len(whole), every_bytes):
                count += 1
                self._try(path, whole, whole[:size], f"cut to {size} of {len(whole)} bytes")
        return count

    def _try(self, path, whole, damaged, how):
        path.write_bytes(damaged)
        if not notices(self.root):
            self.unnoticed.append(f"{path.relative_to(self.root)}: {how}")
        path.write_bytes(whole)


def main():
    folder, flips, every_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    started = time.monotonic()
    damages = Damages(folder)
    damages.flips(flips)
    cuts = damages.cuts(every_bytes)
    assert not notices(damages.root), "the run was not put back"
    print(json.dumps({
        "flips": flips, "cuts": cuts, "unnoticed": damages.unnoticed, "seconds": round(time.monotonic() - started, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
