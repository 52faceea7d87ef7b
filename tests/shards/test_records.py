"""The memory log's record, put together in three steps, and the record of a sample."""

from pathlib import Path

from batchgen.files import sha256_bytes
from batchgen.shards.records import sample_record
from batchgen.types import Sample

GOOD = Sample("fox", "ok", {"txt": b"a fox", "png": b"pixels"})
BAD = Sample("hare", "failed", reason="not finite")
OLD_RUN = Path(__file__).parents[1] / "runs" / "69de57a" / "run"


def test_a_good_sample_states_the_digest_of_each_file_by_name() -> None:
    record = sample_record(GOOD)
    assert (record["key"], record["status"]) == ("fox", "ok")
    assert list(record["sha256"].items()) == [("png", sha256_bytes(b"pixels")), ("txt", sha256_bytes(b"a fox"))]


def test_a_sample_that_failed_states_the_reason_and_no_files() -> None:
    assert sample_record(BAD) == {"key": "hare", "status": "failed", "reason": "not finite"}
