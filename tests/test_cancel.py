"""`batchgen cancel`: all workers of a run end, whoever started them, and the same command goes on."""

import sys

import pytest

from tests.commands import (
    FAKE,
    JOIN,
    SMALL,
    WORKER,
    front,
    run,
    start,
    verify,
    wait_for,
    workers_that_began,
    write_prompts,
)

pytestmark = pytest.mark.slow

CANCEL = [sys.executable, "-m", "batchgen.cancel"]


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 200)


def test_all_workers_end_within_seconds_and_the_same_command_goes_on(tmp_path, prompts):
    here, slow = tmp_path / "run", {"FAKE_STEP_S": "0.5"}
    began = [start(FAKE, *SMALL, f"run_dir={here}", f"job.prompts={prompts}", **slow)]
    wait_for(lambda: workers_that_began(here) == 1)
    began += [start(JOIN, here, "--workers", 2, **slow), start(WORKER, here, 3, 4, **slow)]
    wait_for(lambda: workers_that_began(here) == 4)
    asked = run(CANCEL, here)
    assert asked.returncode == 0, asked.stderr
    assert "4 workers asked to end after what is under way; `batchgen status " in asked.stderr
    said = [process.communicate(timeout=60)[1] for process in began]
    assert [process.returncode for process in began] == [75, 75, 75]
    assert all("asked all workers to end" in one for one in said)
    assert not list((here / "leases").iterdir())
    assert (here / "stop.json").is_file()
    late = run(JOIN, here)
    assert late.returncode == 75 and "asked all workers to end: nothing is begun here" in late.stderr
    again = front(here, prompts)
    assert again.returncode == 0 and not (here / "stop.json").exists()
    assert "0 batches were made twice\nwhole" in verify(here).stdout


def test_a_run_that_is_over_and_one_that_is_none_say_so(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    over = run(CANCEL, tmp_path / "run")
    assert (over.returncode, over.stderr) == (0, f"batchgen: {tmp_path}/run is over: nothing is left to make\n")
    assert not (tmp_path / "run" / "stop.json").exists()
    none = run(CANCEL, tmp_path / "other")
    assert none.returncode == 2 and len(none.stderr.splitlines()) <= 2
