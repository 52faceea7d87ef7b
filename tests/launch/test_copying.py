"""Copies of whole runs, as commands, to an S3 server that goes away and comes back, and to a stand-in for the hub."""

import io
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import webdataset

from batchgen.config.schema import Config
from batchgen.errors import ConfigError
from batchgen.files import sha256_bytes
from batchgen.launch import copier as copier_module
from batchgen.launch import copying as copying_module
from batchgen.launch.copying import check_copies, copying
from batchgen.paths import RunDir
from batchgen.shards.attempt import read_manifest
from batchgen.shards.copies import copied, lease_path
from batchgen.shards.leases import Lease, Watch
from tests.buckets import BUCKET, S3, s3_server
from tests.builders import finish_run, flip, plan_run
from tests.commands import (
    FAKE,
    ROOT,
    beside_progress,
    front,
    kill_after,
    kill_when,
    run,
    verify,
    wait_for,
    write_prompts,
)
from tests.hubs import REPO, environment, hub_server

pytestmark = pytest.mark.slow

TO = f"s3://{BUCKET}/night"
FILES = ["job.width=64", "job.height=64", "job.batch_size=4", "output.batches_per_shard=1"]


@pytest.fixture(scope="module")
def module_server():
    with s3_server() as server:
        yield server


@pytest.fixture
def server(module_server: S3) -> Iterator[S3]:
    module_server.go()
    module_server.come()
    yield module_server
    module_server.go()
    module_server.come()
    for name in module_server.names():
        module_server.client().delete_object(Bucket=BUCKET, Key=name)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "p.txt", 40)


def arguments(run_dir: Path, prompts: Path, *more: str) -> list[str]:
    return ["job=mars_batch", f"run_dir={run_dir}", f"job.prompts={prompts}", *FILES, f"output.copy_to={TO}", *more]


def local_files(run: RunDir) -> dict[str, bytes]:
    paths = [*run.shards.iterdir(), *run.memory_logs.iterdir(), run.index, run.samples_table, run.card]
    return {f"night/{path.relative_to(run.root).as_posix()}": path.read_bytes() for path in paths}


def copies_are_whole(server: S3, run: RunDir) -> bool:
    """Whether every shard's tar in the bucket is what its manifest states."""
    return all(
        sha256_bytes(server.read(f"night/shards/{shard:06d}.tar")) == read_manifest(run, shard)["sha256"]
        for shard in run.committed()
    )


def made(run: RunDir) -> int:
    return sum(path.read_text().count('"event":"made"') for path in run.event_logs())


def test_a_store_that_goes_away_and_comes_back(server: S3, tmp_path: Path, prompts: Path) -> None:
    run = RunDir(tmp_path / "run")
    process = subprocess.Popen(
        [*FAKE, *arguments(run.root, prompts)],
        cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env={**server.environment, "PYTHONPATH": str(ROOT), "FAKE_STEP_S": "1.5", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    wait_for(lambda: len(copied(run)) >= 2, timeout_s=60)
    server.go()
    away = len(run.committed())
    wait_for(lambda: len(run.committed()) >= away + 5, timeout_s=60)  # longer than two looks are apart
    server.come()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    said = [line for line in beside_progress(errors) if "cop" in line]
    assert sum("copies have to wait" in line for line in said) == 1, errors
    assert said[-1] == f"batchgen: all is copied to {TO}"
    assert server.names("night/") == local_files(run).keys()
    assert {name: server.read(name) for name in server.names("night/")} == local_files(run)


@pytest.mark.slow
def test_a_store_that_stays_away_ends_with_75_and_the_same_command_copies_the_rest(
    server: S3, tmp_path: Path, prompts: Path
) -> None:
    run_dir = RunDir(tmp_path / "run")
    server.go()
    away = run(FAKE, *arguments(run_dir.root, prompts, "launch.lease_timeout_s=0.5"), **server.environment)
    assert away.returncode == 75, away.stderr
    assert f"batchgen: {TO} cannot be reached" in away.stderr and "copies are tried again" in away.stderr
    assert f"10 shards of 10 are still to be copied to {TO}; the same command goes on copying" in away.stderr
    assert away.stderr.count("copies have to wait") <= 1
    assert len(run_dir.committed()) == 10 and run_dir.index.exists()
    images = made(run_dir)
    server.come()
    again = run(FAKE, *arguments(run_dir.root, prompts), **server.environment)
    assert again.returncode == 0, again.stderr
    assert "is already done" in again.stderr and f"all is copied to {TO}" in again.stderr
    assert (made(run_dir), {name: server.read(name) for name in server.names()}) == (images, local_files(run_dir))


def test_a_drain_does_not_wait_for_copies(server: S3, tmp_path: Path, prompts: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    server.go()
    code, errors = kill_when(
        0.2, lambda: len(run_dir.committed()) > 2, FAKE, *arguments(run_dir.root, prompts),
        number=signal.SIGINT, FAKE_STEP_S="0.5", **server.environment,
    )  # fmt: skip
    assert code == 75
    assert "still to be copied" in errors and "waiting for copies" not in errors
    assert list(run_dir.leases.glob("copy-*")) == []


def test_two_launchers_share_the_copies(server: S3, tmp_path: Path, prompts: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    both = [
        subprocess.Popen(
            [*FAKE, *arguments(run_dir.root, prompts, "launch.workers=1")],
            cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            env={**server.environment, "PYTHONPATH": str(ROOT), "FAKE_STEP_S": "0.3", "PATH": "/usr/bin:/bin"},
        )
        for _ in range(2)
    ]  # fmt: skip
    errors = [one.communicate(timeout=120)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors
    assert {name: server.read(name) for name in server.names()} == local_files(run_dir)
    assert all(f"all is copied to {TO}" in said for said in errors)
    webdataset.gopen_schemes["s3"] = lambda url, *_: fsspec.open(url, "rb").open()
    urls = [f"{TO}/shards/{shard:06d}.tar" for shard in range(10)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 40 and all(sample["png"][:4] == b"\x89PNG" for sample in samples)


@pytest.mark.slow
def test_tars_that_left_are_verified_extended_and_made_again_if_lost(server: S3, tmp_path: Path, prompts: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    command = arguments(run_dir.root, prompts, "output.keep_local=false")
    first = run(FAKE, *command, **server.environment)
    assert first.returncode == 0, first.stderr
    assert run_dir.tars() == set() and len(run_dir.committed()) == 10 and copies_are_whole(server, run_dir)
    assert f'data_files="{TO}/shards/*.tar"' in first.stderr
    status = run([sys.executable, "-m", "batchgen.status"], run_dir.root)
    assert status.returncode == 0 and "40/40 images, 10/10 shards" in status.stdout
    sound = verify(run_dir.root)
    assert sound.returncode == 0 and f"10 copies checked at {TO}, by size and checksum" in sound.stdout, sound.stderr
    deep = run([sys.executable, "-m", "batchgen.verify"], run_dir.root, "--copies")
    assert deep.returncode == 0 and f"10 copies checked at {TO}, read back, by its sha256" in deep.stdout

    prompts.write_text(prompts.read_text() + "a new dome\na new rover\n")
    more = run(FAKE, *command, "extend=true", **server.environment)
    assert more.returncode == 0, more.stderr
    assert len(run_dir.committed()) == 11 and run_dir.tars() == set() and copies_are_whole(server, run_dir)
    assert server.read("night/index.json") == run_dir.index.read_bytes()

    server.client().delete_object(Bucket=BUCKET, Key="night/shards/000003.tar")
    lost = verify(run_dir.root)
    assert lost.returncode == 1 and f"the copy {TO}/shards/000003.tar is missing there" in lost.stderr
    repaired = run([sys.executable, "-m", "batchgen.repair"], run_dir.root)
    assert repaired.returncode == 0 and "shard 3 set aside" in repaired.stdout, repaired.stderr
    assert sorted(path.name for path in (run_dir.damaged / "0001").glob("*0003*")) == [
        "000003.json", "000003.jsonl", "000003.why.json", "copy-000003.json",
    ]  # fmt: skip
    again = run(FAKE, *command, **server.environment)
    assert again.returncode == 0, again.stderr
    assert verify(run_dir.root).returncode == 0 and copies_are_whole(server, run_dir)

    server.go()
    unreached = verify(run_dir.root)
    assert unreached.returncode == 75 and "not proven: 11 copies not checked" in unreached.stdout
    repaired = run([sys.executable, "-m", "batchgen.repair"], run_dir.root)
    assert repaired.returncode == 75 and "11 copies could not be checked, and were left" in repaired.stderr
    assert len(run_dir.committed()) == 11


@pytest.mark.slow
def test_kills_lose_no_image_that_left_this_disk(server: S3, tmp_path: Path) -> None:
    run_dir, chosen = RunDir(tmp_path / "run"), random.Random(18)
    prompts = write_prompts(tmp_path / "many.txt", 100)
    command = arguments(run_dir.root, prompts, "output.keep_local=false", "launch.lease_timeout_s=1")
    code, kills = -9, 0
    while code != 0:
        seconds = chosen.uniform(1.0, 4.0) if kills < 12 else 120
        code, errors = kill_after(seconds, FAKE, *command, FAKE_STEP_S="0.05", **server.environment)
        assert code in (0, -9), errors
        kills += code == -9
        for shard in run_dir.committed():
            manifest = read_manifest(run_dir, shard)
            waits = run_dir.attempt(shard, manifest["attempt"]).tar
            tar = next((path for path in (run_dir.tar(shard), waits) if path.exists()), None)
            data = server.read(f"night/shards/{shard:06d}.tar") if tar is None else tar.read_bytes()
            assert sha256_bytes(data) == manifest["sha256"], f"shard {shard} is lost"
    assert kills >= 3 and run_dir.tars() == set() and copies_are_whole(server, run_dir)
    done = verify(run_dir.root)
    assert done.returncode == 0 and "100 of 100 images checked" in done.stdout, done.stderr


def test_the_hub_gets_one_commit_for_many_shards(tmp_path: Path, prompts: Path) -> None:
    with hub_server() as hub:
        hub.busy = [412]
        command = ["output.copy_to=hf://datasets/" + REPO, "output.keep_local=false"]
        done = front(tmp_path / "run", prompts, *command, **environment(hub))
        assert done.returncode == 0, done.stderr
        assert len(hub.commits) <= 2 and RunDir(tmp_path / "run").tars() == set()
        with tarfile.open(fileobj=io.BytesIO(hub.files["data/shards/000004.tar"])) as tar:
            assert len(tar.getnames()) == 24
        assert {"data/index.json", "data/samples.parquet", "README.md"} <= hub.files.keys()
        assert "data/README.md" not in hub.files
        wrong = front(tmp_path / "other", prompts, "output.copy_to=hf://datasets/me/no", **environment(hub))
        assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1, wrong.stderr
        assert not (tmp_path / "other").exists()


def test_the_data_set_on_the_hub_loads_by_its_card_and_a_persons_card_stays(
    tmp_path: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with hub_server() as hub:
        command = ["output.copy_to=hf://datasets/" + REPO]
        done = front(tmp_path / "run", prompts, *command, **environment(hub))
        assert done.returncode == 0, done.stderr
        for name, data in hub.files.items():  # as a snapshot of it is on the disk
            (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "hub" / name).write_bytes(data)
        for streaming in (False, True):
            read = datasets.load_dataset(
                str(tmp_path / "hub"), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
            )
            assert len({row["__key__"] for row in read}) == 40
        assert hub.files["README.md"] == (tmp_path / "run" / "README.md").read_bytes()

        card = RunDir(tmp_path / "run").card
        card.write_text(card.read_text().replace("# To do: choose the licence", "license: mit\n#"))
        again = front(tmp_path / "run", prompts, *command, **environment(hub))
        assert again.returncode == 0 and hub.files["README.md"] == card.read_bytes(), again.stderr

        hub.files["README.md"] = b"mine\n"
        card.write_text(f"{card.read_text()}\nmore\n")
        left = front(tmp_path / "run", prompts, *command, **environment(hub))
        assert left.returncode == 0 and hub.files["README.md"] == b"mine\n"
        assert f"hf://datasets/{REPO}/README.md is not of this run and stays" in left.stderr


def test_mistakes_are_one_line_and_leave_no_plan(server: S3, tmp_path: Path, prompts: Path) -> None:
    for mistake, said in (
        ("output.copy_to=s3://nowhere/a", "bucket does not exist"),
        ("output.copy_to=s4://night/a", "is not an address that fsspec knows"),
        ("output.copy_to=gs://night/a", "pip install 'batchgen[gs]'"),
        ("output.copy_to=hf://datasets/me/night", "set the environment variable HF_TOKEN"),
        ("output.keep_local=false", "output.keep_local=false needs output.copy_to=ADDRESS"),
    ):
        done = front(tmp_path / "run", prompts, mistake, HF_TOKEN="", **server.environment)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "run").exists()


def test_a_dry_run_says_where_copies_go_and_asks_nobody(tmp_path: Path, prompts: Path) -> None:
    command = [f"output.copy_to={TO}", "output.keep_local=false", "dry_run=true"]
    done = front(tmp_path / "run", prompts, *command, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert f"copies     each finished shard is copied to {TO}/shards/, and its tar then leaves this disk" in done.stdout
    wrong = front(tmp_path / "run", prompts, "output.copy_to=s4://a", "dry_run=true")
    assert wrong.returncode == 2 and "is not an address that fsspec knows" in wrong.stderr


def test_a_damaged_tar_is_not_copied_and_told(tmp_path: Path, prompts: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    assert front(run_dir.root, prompts).returncode == 0
    flip(run_dir.tar(2), 700)
    done = front(run_dir.root, prompts, f"output.copy_to={tmp_path / 'there'}", "output.keep_local=false")
    assert done.returncode == 1, done.stderr
    assert "000002.tar is not the file that was committed" in done.stderr
    assert done.stderr.splitlines()[-1] == f"batchgen: 1 shard not copied: python -m batchgen.repair {run_dir.root}"
    assert run_dir.tars() == {2} and copied(run_dir) == {0, 1, 3, 4}


def test_another_address_gets_what_is_still_here(tmp_path: Path, prompts: Path) -> None:
    for name in ("one", "two", "two"):
        done = front(tmp_path / "run", prompts, f"output.copy_to={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    names = [
        sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*.*"))
        for name in ("one", "two")
    ]
    assert names[0] == names[1] and len(names[0]) == 18


def test_nothing_to_check_without_an_address() -> None:
    check_copies(Config(), print)
    config = Config()
    config.output.copy_to = "some/folder"
    with pytest.raises(ConfigError, match="full path of a folder"):
        check_copies(config, print)


@pytest.mark.parametrize(("frees", "code", "said"), [(True, 0, 0), (False, 75, 1)])
def test_what_others_copy_is_not_waited_for(tmp_path, monkeypatch, frees, code, said):
    monkeypatch.setattr(copying_module, "_WAIT_S", 0.05)
    monkeypatch.setattr(copying_module, "_IDLE_S", 0.2)
    monkeypatch.setattr(copier_module, "_LOOK_EVERY_S", 0.05)
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(8)], output__copy_to=str(tmp_path / "there"))
    plan.config.launch.wait_for_others = False
    finish_run(plan)
    other = Lease.take_named(lease_path(plan.run, 1), "other", Watch(60.0))
    lines: list[str] = []
    with copying(plan, lines.append) as copies:
        assert copies.finish(threading.Event(), 0, frees) == code
    assert other is not None and copied(plan.run) == {0}
    assert sum("1 shard of 2 is still to be copied" in line and "the same command" in line for line in lines) == said


def test_a_stop_ends_the_wait_at_once(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(8)], output__copy_to="memory://away/a")
    finish_run(plan)
    stop, lines = threading.Event(), list[str]()
    stop.set()
    with copying(plan, lines.append) as copies:
        assert copies.finish(stop, 0) in (0, 75)
    assert not [line for line in lines if "waiting" in line]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://night", "is lost when this command ends"),
        ("{run}", "lies in the run"),
        ("{run}/a", "lies in the run"),
    ],
)
def test_copies_that_would_be_lost_are_refused(tmp_path: Path, prompts: Path, address: str, said: str) -> None:
    run = tmp_path / "run"
    done = front(run, prompts, f"output.copy_to={address.format(run=run)}", "output.keep_local=false")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr
    assert not run.exists()
