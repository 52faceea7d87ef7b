"""Random damage to what batchgen parses: `python -m tests.torture.fuzz FOLDER SECONDS [SEED]`; prints one JSON object.

Each input begins as one that is right and is then cut, spliced, repeated or given hostile bytes. A parser may refuse it
in its own words; it may not crash, hang, or take memory out of proportion.
"""

import gzip
import json
import random
import resource
import signal
import sys
import time
import zlib
from pathlib import Path

from batchgen.errors import BatchgenError
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from batchgen.prompts import Reading, read_prompts
from batchgen.shards.attempt import read_manifest
from batchgen.shards.journal import read_journal
from batchgen.types import PromptFile
from tests.builders import finish_run, plan_run

MIB = 1 << 20
# A parser's time; where more is read than the file has bytes, each MiB of that may take so long, on a busy core.
MOST_S = 10.0
MOST_S_A_MIB = 5.0
MOST_GROWN_BYTES = 512 << 20
_ROWS = [{"prompt": f"a fox, take {n}", "key": f"k{n}", "seed": n, "width": 64, "note": "é"} for n in range(12)]
_HOSTILE = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n" * 50, b'"', b"\\", b"{" * 3000, b"[" * 3000, b"9" * 5000, b",",
    b"-", b"1e999", b"NaN", b"Infinity", b'"\\ud800"', b"null", b"true", b"\x1b[31m", "\u202e".encode(), b"\t",
    b'{"prompt":"a","prompt":"b"}', b"..%2f../", b"\x1f\x8b", b"PAR1", b"a" * 200_000,
]  # fmt: skip


def seeds(folder):
    """{name: bytes} of prompt files that are right, in every format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "\n".join(json.dumps(row) for row in _ROWS)
    table = "prompt,key,seed,note\n" + "".join(f'"a fox, {n}",k{n},{n},x\n' for n in range(12))
    pq.write_table(pa.Table.from_pylist(_ROWS), folder / "seed.parquet")
    plain = {
        "txt": "\n".join(str(row["prompt"]) for row in _ROWS).encode(),
        "jsonl": lines.encode(),
        "json": json.dumps(_ROWS).encode(),
        "csv": table.encode(),
        "tsv": table.replace(",", "\t").encode(),
        "parquet": (folder / "seed.parquet").read_bytes(),
    }
    return plain | {f"{name}.gz": gzip.compress(data) for name, data in plain.items() if name != "parquet"}


def damaged(rng, data):
    """`data`, changed in one to four places."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice((0, 1, 2, 8, 64, 1000)))
        part = rng.choice((rng.choice(_HOSTILE), rng.randbytes(rng.randint(0, 16)), bytes(data[start:stop]) * 3, b""))
        data[start:stop] = part
    return bytes(data)


class Target:
    """Something that parses: files that are right, and what reads one."""

    def __init__(self, name, whole, path, read):
        self.name, self._whole, self._path, self._read = name, whole, path, read

    def attack(self, rng):
        """What went wrong, or None."""
        data = damaged(rng, self._whole)
        self._path.write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        signal.alarm(int(6 * MOST_S))
        try:
            self._read(self._path)
        except BatchgenError:
            pass
        except BaseException as error:
            return f"{self.name}: {error!r} from {data[:400]!r}"
        finally:
            signal.alarm(0)
            self._path.write_bytes(self._whole)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        took_s = time.monotonic() - started
        if grown > MOST_GROWN_BYTES or (took_s > MOST_S and took_s > MOST_S_A_MIB * _unpacked_bytes(data) / MIB):
            return f"{self.name}: {grown} bytes and {took_s:.1f} s for {data[:400]!r}"
        return None


def _unpacked_bytes(data):
    """How much a gzip file holds, as far as it can be read: damage makes megabytes of a few bytes."""
    count, unpack = 0, zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        while data and not unpack.eof:
            count += len(unpack.decompress(data, MIB))
            data = unpack.unconsumed_tail
    except zlib.error:
        return count
    return count


def targets(folder):
    """Every parser of what users and disks give."""
    found = []
    for ending, whole in seeds(folder).items():
        path = folder / f"prompts.{ending}"
        found.append(Target(ending, whole, path, lambda one: list(read_prompts([PromptFile(one)], Reading()))))
    plan = plan_run(folder, ["a fox", "a hen", "a cat"])
    finish_run(plan)
    run = RunDir(plan.run.root)
    found += [
        Target(path.name, path.read_bytes(), path, lambda _: load_plan(run).shard(0))
        for path in (run.plan.facts, run.plan.config, run.plan.shard(0))
    ]
    manifest, journal = run.manifest(0), run.memory_log(0)
    found.append(Target("manifest", manifest.read_bytes(), manifest, lambda _: read_manifest(run, 0)))
    found.append(Target("journal", journal.read_bytes(), journal, read_journal))
    return found


def main():
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns())
    everything = targets(folder)
    started, tried, problems = time.monotonic(), 0, []
    while time.monotonic() - started < seconds:
        problem = everything[tried % len(everything)].attack(rng)
        problems += [problem] if problem else []
        tried += 1
    print(json.dumps({"tried": tried, "problems": problems[:20], "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
