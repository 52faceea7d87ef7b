"""How many file calls `status` makes on a large run: on a network file system each takes milliseconds."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from batchgen.plan.store import Plan
from tests.commands import run
from tests.large_run import Large, large_run

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the calls")
# The calls that a file server answers. What is known of an open file (fstat, lseek) and its end costs nothing.
_CALL = re.compile(r"(open|openat|pread64|read|getdents64|stat|newfstatat|readlink)\(")


def calls(tmp_path: Path, large: Large) -> tuple[int, int, int]:
    """(calls, of which reading directories, and calls in the thread that made most of them)."""
    plan = large_run(tmp_path, large)
    traces = tmp_path / "traces"
    traces.mkdir()
    tracing = ["strace", "-ff", "-y", "-qq", "-o", str(traces / "thread"), "-e", "trace=%file,%desc", sys.executable]
    assert run([*tracing, "-m", "batchgen.status"], plan.run.root).returncode == 75
    threads = [[call for call in path.read_text().splitlines() if _counts(call, plan)] for path in traces.iterdir()]
    every = [call for thread in threads for call in thread]
    return len(every), sum(call.startswith("getdents64") for call in every), max(map(len, threads))


def _counts(call: str, plan: Plan) -> bool:
    match = _CALL.match(call)
    if match is None or str(plan.run.root) not in call or "AT_EMPTY_PATH" in call:
        return False
    return match[1] != "read" or not call.endswith(" = 0")  # which is the end of a file


def test_calls_grow_with_workers_and_not_with_shards(tmp_path: Path) -> None:
    for name in ("few", "more shards", "more workers"):
        (tmp_path / name).mkdir()
    few, listed_few, _ = calls(tmp_path / "few", Large(shards=400, finished=200, workers=32))
    shards, listed, _ = calls(tmp_path / "more shards", Large(shards=2000, finished=1800, workers=32))
    assert shards - listed <= few - listed_few + 8, "a listing gives hundreds of names a call; nothing else may grow"
    workers, listed, one_thread = calls(tmp_path / "more workers", Large(shards=400, finished=200, workers=128))
    each = ((workers - listed) - (few - listed_few)) / (128 - 32)
    assert each <= 4.1, "a lease and a log, both opened and read once"
    at_256 = workers + 128 * each
    print(f"{at_256:.0f} calls for 256 workers, {one_thread} of them one after the other for 128")
    assert at_256 <= 1700
    assert one_thread <= workers / 5, "most calls wait for the server at the same time"
