"""Workers that are killed, crash, or cannot work at all: no night is lost, no row is blamed for nothing."""

import json

import pytest

from tests.commands import front, samples, shard_files, verify, write_prompts

KILLS = 200
LARGE = ("job.batch_size=64", "output.batches_per_shard=2")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.txt", 256)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prompts):
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert front(run_dir, prompts, *LARGE).returncode == 0
    return run_dir


def failed(run_dir):
    manifests = [json.loads(path.read_text()) for path in (run_dir / "shards").glob("*.json")]
    return [one["key"] for manifest in manifests for one in manifest["samples"] if one["status"] != "ok"]


@pytest.mark.torture
def test_two_hundred_kills_at_one_batch_set_no_row_aside(tmp_path, prompts, undisturbed):
    killed = front(
        tmp_path / "run", prompts, *LARGE, f"launch.restarts={KILLS - 1}", timeout_s=600,
        FAKE_POISON="000000070-", FAKE_DEATH="SIGKILL",
    )  # fmt: skip
    assert killed.returncode == 1
    assert killed.stderr.count("was killed by SIGKILL") == KILLS
    assert not (tmp_path / "run" / "failures").exists()
    assert front(tmp_path / "run", prompts, *LARGE).returncode == 0
    assert shard_files(tmp_path / "run") == shard_files(undisturbed)


@pytest.mark.torture
@pytest.mark.parametrize(("row", "death"), [(64, "SIGSEGV"), (100, "SIGABRT"), (127, "png")])
def test_a_crash_in_one_row_of_64_costs_that_row_alone(tmp_path, prompts, undisturbed, row, death):
    done = front(tmp_path / "run", prompts, *LARGE, FAKE_POISON=f"{row:09d}-", FAKE_DEATH=death)
    assert done.returncode == 3, done.stderr
    key = f"{row:012d}-00"
    assert failed(tmp_path / "run") == [key]
    expected = samples(undisturbed)
    made = samples(tmp_path / "run")
    assert made == {name: data for name, data in expected.items() if not name.startswith(key)}
    assert verify(tmp_path / "run").returncode == 3


@pytest.mark.torture
@pytest.mark.parametrize(
    "trouble",
    [
        {"FAKE_UNABLE": "0", "FAKE_WHY": "no_cuda"},
        {"FAKE_UNABLE": "1", "FAKE_WHY": "full"},
        {"FAKE_UNABLE": "0", "FAKE_WHY": "hiccup"},
        {"FAKE_POISONED": "1"},
        {"FAKE_BROKEN": "0"},
        {"FAKE_POISONED": "0", "FAKE_UNABLE": "1", "FAKE_WHY": "full"},
    ],
)
def test_of_three_workers_those_that_cannot_work_leave_and_the_rest_makes_every_image(
    tmp_path, prompts, undisturbed, trouble
):
    workers = ("launch.workers=3", "job.batch_size=8", "output.batches_per_shard=2")
    done = front(tmp_path / "run", prompts, *workers, FAKE_STEP_S="0.2", **trouble)
    assert done.returncode == 0, done.stderr
    assert failed(tmp_path / "run") == []
    assert samples(tmp_path / "run") == samples(undisturbed)
    assert verify(tmp_path / "run").returncode == 0
