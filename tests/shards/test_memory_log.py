"""The records of the memory log."""

import json
from pathlib import Path

from batchgen.shards.memory_log import Proof, proven, written
from batchgen.types import Sample
from tests.builders import RECORD

GOOD = Sample("fox", "ok", {"txt": b"a fox", "png": b"pixels"})
BAD = Sample("hare", "failed", reason="not finite")
OLD_RUN = Path(__file__).parents[1] / "runs" / "69de57a" / "run"


def test_what_was_written_is_added_in_place_and_says_how_many_failed() -> None:
    record = {**RECORD, "stage_seconds": {"encode": 1.0}}
    done = written(record, 0.12345, [GOOD, BAD])  # type: ignore[arg-type]
    assert done["stage_seconds"] == {"encode": 1.0, "write": 0.123}
    assert (done["status"], done["failed"]) == ("failed", 1)
    assert list(done) == [*record, "status", "failed"]


def test_a_record_has_the_keys_that_earlier_commits_wrote_in_their_order() -> None:
    lines = (OLD_RUN / "logs" / "memory" / "000000.jsonl").read_text().splitlines()
    old = json.loads(lines[1])
    names = list(old)
    end = names.index("status")
    unit = {name: old[name] for name in names[:end]}
    proof: Proof = {name: old[name] for name in ("tar_start", "tar_end", "sha256", "samples")}  # type: ignore[assignment]
    record = proven(written(unit, 0.0, []), proof)  # type: ignore[arg-type]
    assert [*record, "checksum"] == names
