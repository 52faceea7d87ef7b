"""The end of a run: never 'done' by manifests alone, and finished by whoever sees the last shard in."""

import json
import shutil
import sys

import pytest

from batchgen.errors import BrokenRunError
from batchgen.files import sha256_file
from batchgen.plan.store import load_plan
from batchgen.prepare import prepare
from batchgen.shards.finish import finish
from batchgen.shards.index import is_current
from tests.builders import finish_run, full_attempt, make_config, plan_run, write_rows
from tests.commands import FAKE, front, run, shard_files, verify, write_prompts

PROMPTS = [f"fox {number}" for number in range(6)]
STATUS = [sys.executable, "-m", "batchgen.status"]
WORKER = [*FAKE[:-1], "worker"]


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 50)


def take_away(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-512])


@pytest.mark.parametrize(("harm", "said"), [(take_away, "tar is missing"), (cut, "tar has ")])
def test_a_finished_run_whose_tar_is_gone_is_not_done(tmp_path, prompts, harm, said):
    front(tmp_path / "run", prompts)
    whole = shard_files(tmp_path / "run")
    harm(tmp_path / "run" / "shards" / "000001.tar")
    left = shard_files(tmp_path / "run")
    again = front(tmp_path / "run", prompts)
    assert again.returncode == 1
    assert f"shard 000001's {said}" in again.stderr and "done" not in again.stderr
    assert len(again.stderr.splitlines()) == 2 and "batchgen.repair" in again.stderr
    assert ("put them back" in again.stderr) == (harm is take_away)
    proved = verify(tmp_path / "run")
    assert proved.returncode == 1 and ("put them back" in proved.stdout) == (harm is take_away)
    assert shard_files(tmp_path / "run") == left, "nothing is made again unasked"
    told = run(STATUS, tmp_path / "run")
    assert told.returncode == 1 and f"broken: shard 000001's {said}" in told.stdout
    assert run(WORKER, tmp_path / "run", "0", "1").returncode == 1
    assert run([sys.executable, "-m", "batchgen.repair"], tmp_path / "run").returncode == 0
    assert front(tmp_path / "run", prompts).returncode == 0
    assert shard_files(tmp_path / "run") == whole


def test_tars_that_were_moved_and_put_back_are_done(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    (tmp_path / "elsewhere").mkdir()
    for path in list((tmp_path / "run" / "shards").glob("*.tar")):
        path.rename(tmp_path / "elsewhere" / path.name)
    moved = front(tmp_path / "run", prompts)
    assert moved.returncode == 1 and "and 4 more" in moved.stderr
    for path in list((tmp_path / "elsewhere").iterdir()):
        path.rename(tmp_path / "run" / "shards" / path.name)
    assert front(tmp_path / "run", prompts).returncode == 0


def test_a_tar_that_goes_while_the_run_is_unfinished_costs_no_other_shard(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    for name in ("shards/000005.json", "shards/000005.tar", "shards/000001.tar"):
        (tmp_path / "run" / name).unlink()
    told = run(STATUS, tmp_path / "run")
    assert told.returncode == 1 and "broken: shard 000001's tar is missing" in told.stdout
    again = front(tmp_path / "run", prompts)
    assert again.returncode == 1
    assert again.stderr.count("shard 000001's tar is missing") == 2, "at the start, and at the end"
    assert "started again" not in again.stderr
    assert (tmp_path / "run" / "shards" / "000005.tar").exists()


def test_workers_that_were_started_alone_finish_the_run(tmp_path, prompts):
    front(tmp_path / "front", prompts)
    front(tmp_path / "run", prompts, FAKE_STEP_S="0")
    for name in ("shards", "work", "leases", "logs", "index.json"):  # as planned, and nothing made
        path = tmp_path / "run" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    done = run(WORKER, tmp_path / "run", "0", "1")
    assert done.returncode == 0, done.stderr
    assert "is done: 50 images in 7 shards" in done.stderr
    assert f'data_files="{tmp_path / "run" / "shards"}/*.tar"' in done.stderr, "the manifests lie beside the tars"
    index = json.loads((tmp_path / "run" / "index.json").read_text())
    assert index["shards"] == json.loads((tmp_path / "front" / "index.json").read_text())["shards"]
    assert verify(tmp_path / "run").returncode == 0
    assert "is already done" in front(tmp_path / "run", prompts).stderr


def test_a_directory_that_no_pattern_can_name_is_left_to_webdataset(tmp_path):
    (tmp_path / "a::b").mkdir()
    plan = plan_run(tmp_path / "a::b", PROMPTS)
    finish_run(plan)
    assert finish(plan).lines[-1] == "read them with webdataset"


def test_two_that_finish_at_once_write_the_same_index(tmp_path):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan)
    plan.run.index.unlink()
    assert finish(plan) == finish(plan)
    assert is_current(plan)


def test_who_finishes_by_an_old_plan_never_hides_an_extension(tmp_path):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan)
    plan.run.index.unlink()
    more = write_rows(tmp_path / "zmore.jsonl", ["a hare", "a badger"])
    config = make_config(tmp_path, PROMPTS, output__batches_per_shard=1, extend=True)
    config.job.prompts = [config.job.prompts, str(more)]
    longer = prepare(plan.run, config)
    assert finish(plan).code == 0
    assert not plan.run.index.exists(), "whoever makes the rest writes it"
    full_attempt(longer, 3).commit()
    assert finish(plan).code == 0
    assert is_current(load_plan(plan.run)) and len(json.loads(plan.run.index.read_text())["shards"]) == 4


def test_finishing_names_what_is_missing_and_writes_no_index(tmp_path):
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan)
    plan.run.index.unlink()
    digest = sha256_file(plan.run.tar(0))
    plan.run.tar(1).unlink()
    with pytest.raises(BrokenRunError, match="shard 000001's tar is missing"):
        finish(plan)
    assert not plan.run.index.exists() and sha256_file(plan.run.tar(0)) == digest


def test_a_run_goes_on_after_its_logs_were_removed(tmp_path, prompts):
    front(tmp_path / "run", prompts)
    whole = shard_files(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "logs")
    assert verify(tmp_path / "run").returncode == 0
    for name in ("shards/000005.json", "shards/000005.tar"):
        (tmp_path / "run" / name).unlink()
    assert run([sys.executable, "-m", "batchgen.repair"], tmp_path / "run").returncode == 0
    assert front(tmp_path / "run", prompts).returncode == 0
    assert verify(tmp_path / "run").returncode == 0
    assert shard_files(tmp_path / "run") == whole


@pytest.mark.parametrize(("fails", "kind"), [("", ""), ("", "black"), ("000000003-", "")])
def test_images_that_all_fail_alike_are_not_to_be_tried_again(tmp_path, prompts, fails, kind):
    done = front(tmp_path / "run", prompts, FAKE_NAN=fails or "0", FAKE_BAD=kind)
    all_alike = f"every image failed alike: {kind or 'not finite'}"
    assert done.returncode == 3, done.stderr
    assert ("retry_failed" in done.stderr) == bool(fails)
    assert (all_alike in done.stderr and "model.dtype=" in done.stderr) == (not fails)
    if not fails:
        assert "is done: 0 images in 7 shards" in done.stderr
