"""Runs that earlier commits left unfinished, as they are kept in tests/runs: this code goes on with each."""

import json
import shutil
from pathlib import Path

import pytest

from tests.builders import flip
from tests.commands import REAL, run, samples, shard_files, verify
from tests.runs.make import both, job

RUNS = Path(__file__).parent / "runs"
COMMITS = sorted(path.name for path in RUNS.iterdir() if (path / "run").is_dir())
# The worker that held the lease was on a machine that is not this one: it is dead when it has been silent for so long.
SILENCE = "launch.lease_timeout_s=0.5"


def unpack(commit, tmp_path):
    """A copy of the stored run, elsewhere than where it was made."""
    work = tmp_path / commit
    shutil.copytree(RUNS / commit, work)
    return work


def go_on(work, *more, **environment):
    """The same command again, but for the place of its files."""
    return run(REAL, *job(work, *both(work), SILENCE, *more), **environment)


def test_there_is_a_run_of_every_landed_order():
    assert "2f10da6" in COMMITS


@pytest.mark.slow
@pytest.mark.parametrize("commit", COMMITS)
def test_an_old_run_is_resumed_verified_repaired_and_extended(commit, tmp_path):
    work = unpack(commit, tmp_path)
    before = shard_files(work / "run")
    left = next((work / "run" / "work").glob("000001.*.tar")).read_bytes()
    assert verify(work / "run").returncode == 75
    done = go_on(work)
    assert done.returncode == 0, done.stderr
    after = shard_files(work / "run")
    assert {name: after[name] for name in before} == before, "what is committed never changes"
    first_unit = left[: left.rindex(b".txt") // 512 * 512]
    assert len(first_unit) > 4096 and after["000001.tar"].startswith(first_unit), "what was finished is not made again"
    made = samples(work / "run")
    assert len(made) == 3 * 20
    forms = {tuple(json.loads(data)) for name, data in made.items() if name.endswith(".json")}
    assert len(forms) == 1, "what is made from now on has the form of what was there"
    assert verify(work / "run").returncode == 0

    # A damaged tar is made again by the command that plans more rows, too.
    flip(work / "run" / "shards" / "000000.tar", 3000)
    assert verify(work / "run").returncode == 1
    repaired = run([*REAL[:1], "-m", "batchgen.repair"], work / "run")
    assert repaired.returncode == 0, repaired.stderr
    with (work / "first.csv").open("a") as file:  # the first of two files: its rows come after a row that was left out
        file.write("".join(f"rover {place} on mars,2,n{place}\n" for place in (0, 100, 101, 102)))
    refused = go_on(work, "extend=false")
    assert refused.returncode == 2 and "first.csv: rows were appended" in refused.stderr
    assert go_on(work, "job.limit=22").returncode == 0
    assert go_on(work).returncode == 0
    assert verify(work / "run").returncode == 0
    kept = {name: data for name, data in after.items() if name != "000000.tar"}
    assert kept.items() <= shard_files(work / "run").items()
    more = samples(work / "run")
    assert {name for name in more if name.endswith(".txt")} - made.keys() == {
        f"0000000000{row:02d}-00.txt" for row in (9, 10, 11, 12)
    }
    again, once = (json.loads(more[f"0000000000{row:02d}-00.json"]) for row in (9, 0))
    assert again["prompt"] == once["prompt"] and again["seed"] != once["seed"], "it is the text's second occurrence"
