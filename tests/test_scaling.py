"""The benchmark of several GPUs: how it reckons, and that it goes through on the fake engine and keeps nothing."""

import json
import re
import sys
from typing import Any

import pytest

from batchgen.memory import cache
from batchgen.memory.estimate import estimate
from batchgen.memory.placement_bytes import pinned_bytes
from batchgen.models.find import locate
from tests.bench.record import RESULTS
from tests.bench.scaling import compare, memory, powers, speed, together
from tests.builders import plan_run
from tests.commands import run


def record(worker, shard, batch, start_s, seconds, images=4):
    at = f"2026-01-01T00:{int(start_s) // 60:02d}:{start_s % 60:06.3f}+00:00"
    facts = {"worker": worker, "shard": shard, "batch": batch, "started_at": at, "seconds": seconds, "images": images}
    return facts | {"stage_seconds": {"denoise": seconds / 2}}


BEGAN_S = 1_767_225_600.0  # 2026-01-01


def test_the_first_batch_of_each_worker_and_the_start_do_not_count():
    slow = [record("a", 0, 0, 10, 9.0), record("a", 0, 1, 20, 2.0), record("a", 2, 0, 23, 2.0)]  # a commit between
    in_units = [record("b", 1, 0, 12, 4.0, 2), record("b", 1, 0, 16, 4.0, 2), record("b", 1, 1, 20, 8.0)]
    found = speed([*in_units, *slow], BEGAN_S, 20)
    assert found["images_per_s_of_each"] == [8 / 5, 4 / 8]
    assert found["images_per_s"] == pytest.approx(2.1)
    assert found["batch_s"]["whole"] == 2 * found["batch_s"]["denoise"] == 4.0
    assert (found["start_s"], found["start_apart_s"], found["end_apart_s"]) == (10.0, 2.0, 3.0)
    with pytest.raises(AssertionError, match="images were lost"):
        speed(slow, BEGAN_S, 20)


def test_crews_are_compared_with_one_gpu_by_the_goals():
    class Bars(list):
        def bar(self, what, value, below=None, at_least=None, arguments=""):
            self.append((what, value, below, at_least))

    one = {"images_per_s": 6.0, "wall_s": 100.0, "whole": 1, "probes": 1, "host_rss_bytes_of_all": 10}
    two = {"images_per_s": 11.76, "wall_s": 104.0, "whole": 1, "probes": 1, "host_rss_bytes_of_all": 21}
    compare(bars := Bars(), {1: one, 2: two}, "")
    assert [(value, goal) for what, value, _, goal in bars if what.startswith("2 GPUs: images/s")] == [(1.96, 1.95)]
    assert [(value, goal) for what, value, _, goal in bars if what.startswith("2 GPUs: wall-clock")] == [(1.923, 1.9)]
    assert [value for what, value, _, _ in bars if "host memory" in what] == [1.05]
    assert len(bars) == 7


def test_the_turns_of_a_crew_are_one_row():
    one = {"images_per_s": 6.0, "wall_s": 100.0, "whole": 1, "probes": 0, "host_rss_bytes_of_all": 10}
    other = {"images_per_s": 5.0, "wall_s": 110.0, "whole": 0, "probes": 1, "host_rss_bytes_of_all": 9}
    assert together([one, other]) == {
        "images_per_s": 5.5, "wall_s": 105.0, "whole": 0, "probes": 1, "host_rss_bytes_of_all": 10,
    }  # fmt: skip


def test_powers():
    assert [powers(most) for most in (0, 1, 2, 5, 8)] == [[], [1], [1, 2], [1, 2, 4], [1, 2, 4, 8]]


def test_page_locked_memory_is_beside_its_prediction(tmp_path):
    plan = plan_run(tmp_path)
    figures = estimate(locate(plan.config.model), "fp32", 64, 64)
    cache.write(plan.run.figures("NVIDIA H100", 64, 64), figures)
    plan.run.policy("NVIDIA H100", 64, 64).write_text("{}")
    used = [("a", 5, 7), ("a", 6, 7), ("b", 4, None)]
    facts: dict[str, Any] = {"stage_seconds": {}, "device": "NVIDIA H100", "policy": {"placement": "weight_streaming"}}
    records = [facts | {"worker": one, "host_rss_bytes": rss, "host_pinned_bytes": pin} for one, rss, pin in used]
    plan.run.memory_log(0).write_text("".join(f"{json.dumps(one)}\n" for one in records))
    found = memory(plan.run)
    assert (found["host_rss_bytes"], found["host_pinned_bytes"], found["policies_frozen"]) == ([6, 4], [7, 0], 1)
    assert found["predicted_pinned_bytes_of_each"] == pinned_bytes(figures.weights, "weight_streaming") > 0


@pytest.mark.slow
def test_the_whole_program_on_the_fake_engine():
    before = {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()}
    done = run(
        [sys.executable, "-m", "tests.bench.scaling"], "--small", "--kill", "--gpus", 2, "--batches", 8, "--turns", 1
    )
    assert done.returncode == 0, done.stderr
    rows = {(row["kind"], row["gpus"]): row for row in map(json.loads, re.findall(r"^\{.*\}$", done.stdout, re.M))}
    assert rows.keys() == {("scaling", 2), ("kill", 2)}
    assert all(row["whole"] and row["images"] == 64 for row in rows.values())
    killed = rows["kill", 2]
    assert killed["shard_lost"] is None or killed["rows_kept"] is not None
    assert "met      2 GPUs, a worker killed halfway: the run is whole" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in RESULTS.iterdir()} == before
