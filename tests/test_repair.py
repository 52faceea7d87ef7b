"""`python -m batchgen.repair`: what is damaged is set aside whole, and the next run makes just that again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchgen import files, repair
from batchgen.console import run_dir_command
from batchgen.errors import EXIT_BROKEN, EXIT_USER, EXIT_WHOLE, BrokenRunError
from batchgen.files import seal
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.plan.store import Sources, load_plan, save_plan
from batchgen.shards import attempt as shards
from batchgen.shards.attempt import is_done, publish, read_manifest
from batchgen.shards.leases import Lease, Watch
from batchgen.types import Batch, Shard
from batchgen.verify import show
from tests.builders import (
    finish_run,
    flip,
    full_attempt,
    gone_process,
    leave_attempt,
    make_config,
    make_prompt,
    plan_run,
    start_attempt,
    truncate,
)
from tests.commands import FAKE, ROOT, front, shard_files, verify, wait_for, write_prompts
from tests.test_verify import PROMPTS, contents, edit_index, reseal, swap_tars


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of two, made once. A silent lease is given up after 0.3 s."""
    root = tmp_path_factory.mktemp("finished")
    plan = plan_run(root, PROMPTS, output__batches_per_shard=1, launch__lease_timeout_s=0.3)
    finish_run(plan)
    return plan.run.root


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunDir:
    """A copy of the finished run, to be damaged."""
    return RunDir(Path(shutil.copytree(finished_run, tmp_path / "run")))


@pytest.fixture
def command(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process; returns the exit code."""

    def act(*flags: str) -> int:
        monkeypatch.setattr(sys, "argv", ["repair", str(run.root), *flags])
        return run_dir_command("repair", "", repair.repair, repair.rehearse)

    return act


def kept(run: RunDir) -> set[bytes]:
    return set(contents(run).values())


def make_rest(run: RunDir) -> None:
    """What the next run of the same command does."""
    finish_run(load_plan(run))


def link_out(path: Path) -> None:
    """Plant a symbolic link to the same bytes outside the run."""
    outside = path.parents[2] / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def link_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/no/where")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def extra_sample(run: RunDir) -> None:
    """A tar with a sample twice, and a manifest that states its bytes."""
    data = run.tar(1).read_bytes()[:-1024]
    run.tar(1).write_bytes(data + data + bytes(1024))
    reseal(run.manifest(1), bytes=run.tar(1).stat().st_size, sha256=files.sha256_file(run.tar(1)))


DAMAGES: dict[str, tuple[Callable[[RunDir], object], list[int], str]] = {
    "bit of a tar": (lambda run: flip(run.tar(1), 2000), [1], "is not the file that was committed"),
    "tar torn": (lambda run: truncate(run.tar(1), 700), [1], "is not the file that was committed"),
    "tar empty": (lambda run: run.tar(1).write_bytes(b""), [1], "is not the file that was committed"),
    "tar gone": (lambda run: run.tar(1).unlink(), [1], "is missing, but its manifest is there"),
    "tars swapped": (swap_tars, [0, 1], "is not the file that was committed"),
    "samples twice": (extra_sample, [1], "is in the tar but is not next in the manifest"),
    "manifest flipped": (lambda run: flip(run.manifest(1), 50), [1], "000001.json is damaged"),
    "manifest empty": (lambda run: run.manifest(1).write_bytes(b""), [1], "000001.json is damaged"),
    "manifest gone": (lambda run: run.manifest(1).unlink(), [1], "has no manifest"),
    "manifest sealed and strange": (
        lambda run: run.manifest(1).write_bytes(seal({"shard": 1, "format": 1})),
        [1],
        "was not written by batchgen",
    ),
    "manifest of another run": (
        lambda run: reseal(run.manifest(1), run_id="f" * 32),
        [1],
        "belongs to another run or plan",
    ),
    "manifest of another plan": (
        lambda run: reseal(run.manifest(1), plan_sha256="f"),
        [1],
        "belongs to another run or plan",
    ),
    "manifest that lists too little": (
        lambda run: reseal(run.manifest(1), samples=[]),
        [1],
        "keys other than the planned ones",
    ),
    "manifest of no planned shard": (
        lambda run: shutil.copy(run.manifest(2), run.manifest(3)),
        [3],
        "does not belong to any planned shard",
    ),
    "manifest of another spelling": (
        lambda run: run.manifest(1).rename(run.shards / "0000001.json"),
        [1],
        "No such file",
    ),
    "tar a link": (lambda run: link_out(run.tar(1)), [1], "000001.tar is not a plain file"),
    "manifest a link": (lambda run: link_out(run.manifest(1)), [1], "000001.json is not a plain file"),
    "manifest a link to nowhere": (
        lambda run: link_nowhere(run.manifest(1)),
        [1],
        "000001.json is not a plain file",
    ),
    "tar a pipe": (lambda run: make_pipe(run.tar(1)), [1], "000001.tar is not a plain file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_set_aside_with_its_reason_and_made_again(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    act, expected, reason = DAMAGES[damage]
    whole = shard_files(run.root)
    act(run)
    before, outside = kept(run), {path: path.read_bytes() for path in run.root.parent.glob("outside-*")}
    assert command() == EXIT_WHOLE
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out[:-1]] == [f"shard {shard} set aside" for shard in expected]
    assert reason in out[0] and "batchgen.repair" not in "".join(out), "what is being done was advised"
    assert f"{len(expected)} of 3 shards set aside in {run.damaged / '0001'}" in out[-1]
    place = run.damaged / "0001"
    for shard in expected:
        note = json.loads((place / f"{shard:06d}.why.json").read_bytes())
        assert note["shard"] == shard and note["problems"] and note["files"]
        assert not [
            path for path in contents(run) if path.name.startswith(f"{shard:06d}.") and path.parent == run.shards
        ]
    assert before <= kept(run), "bytes were lost"
    assert not run.index.exists()
    assert {path: path.read_bytes() for path in outside} == outside
    untouched = {name: data for name, data in whole.items() if int(name.partition(".")[0]) not in expected}
    assert shard_files(run.root) == untouched
    make_rest(run)
    assert show(run) == EXIT_WHOLE
    assert shard_files(run.root) == whole
    assert before <= kept(run), "the next run overwrote what was set aside"
    assert list(run.leases.iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_dry_run_tells_the_same_and_changes_nothing(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    act, expected, reason = DAMAGES[damage]
    act(run)
    before, names = contents(run), sorted(run.root.rglob("*"))
    assert command("--dry-run") == EXIT_WHOLE
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out[:-1]] == [f"shard {shard} would be set aside" for shard in expected]
    assert reason in out[0] and "nothing was changed" in out[-1] and "batchgen.repair" not in "".join(out)
    assert (contents(run), sorted(run.root.rglob("*"))) == (before, names)


def test_nothing_is_set_aside_in_a_sound_run_or_in_one_that_is_not_finished(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert command() == EXIT_WHOLE
    assert "no shard is damaged" in capsys.readouterr().out
    for path in (run.manifest(2), run.tar(2), run.memory_log(2), run.index):
        path.unlink()
        before.pop(path)
    assert command() == EXIT_WHOLE
    assert contents(run) == before


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: shutil.rmtree(run.root / "logs"),
        lambda run: run.memory_log(1).unlink(),
        lambda run: flip(run.memory_log(1), -9),
        lambda run: link_out(run.memory_log(1)),
        lambda run: run.index.unlink(),
    ],
    ids=["all logs gone", "log gone", "log flipped", "log a link", "index gone"],
)
def test_a_shard_whose_tar_is_right_is_never_set_aside(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], harm: Callable[[RunDir], object]
) -> None:
    harm(run)
    before = contents(run)
    assert command() == EXIT_WHOLE
    assert "no shard is damaged" in capsys.readouterr().out
    assert contents(run) == before
    make_rest(run)
    assert show(run) == EXIT_WHOLE


def test_a_second_repair_has_a_place_of_its_own(run: RunDir, command: Callable[..., int]) -> None:
    for number in ("0001", "0002"):
        flip(run.tar(1), 2000)
        assert command() == EXIT_WHOLE
        assert (run.damaged / number / "000001.tar").exists()
        make_rest(run)
    assert show(run) == EXIT_WHOLE


def test_an_index_that_is_wrong_is_written_anew(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_index(run)
    assert command() == EXIT_WHOLE
    assert "index.json set aside: index.json does not list" in capsys.readouterr().out
    assert (run.damaged / "0001" / "index.json").exists()
    make_rest(run)
    assert show(run) == EXIT_WHOLE


PLAN_DAMAGES: dict[str, tuple[Callable[[RunDir], object], str]] = {
    "prompts of a shard": (lambda run: flip(run.plan.shard(1), 30), "000001.jsonl of the plan is damaged"),
    "prompts of a shard gone": (lambda run: run.plan.shard(1).unlink(), "of the plan cannot be read"),
    "configuration": (lambda run: flip(run.plan.config, -3), "the plan"),
    "run id": (
        lambda run: run.plan.facts.write_text(run.plan.facts.read_text().replace(load_plan(run).run_id, "f" * 32)),
        "run.json is damaged",
    ),
    "not JSON": (lambda run: truncate(run.plan.facts, 9), "cannot be read"),
}


@pytest.mark.parametrize("damage", PLAN_DAMAGES)
def test_by_a_damaged_plan_nothing_is_set_aside(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    act, expected = PLAN_DAMAGES[damage]
    act(run)
    flip(run.tar(0), 2000)
    before = contents(run)
    assert command() == EXIT_BROKEN
    err = capsys.readouterr().err
    assert expected in err and len(err.splitlines()) == 1
    assert contents(run) == before


def test_shards_of_an_extension_that_is_gone_are_not_set_aside(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(run, 2)
    run.manifest(3).write_bytes(seal(manifest | {"shard": 3}))
    before = contents(run)
    assert command() == EXIT_BROKEN
    assert "000003.json was made by this run but is not in its plan" in capsys.readouterr().err
    assert contents(run) == before


def test_a_live_worker_is_not_disturbed(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(run.tar(1), 2000)
    lease = Lease.take(run, 2, "a worker", Watch(0.3))
    assert lease is not None

    def work_on(_: float) -> None:
        threading.Event().wait(0.1)
        lease.beat()

    monkeypatch.setattr(time, "sleep", work_on)
    before = shard_files(run.root)
    for flags in ([], ["--dry-run"]):
        assert command(*flags) == EXIT_USER
        assert "Stop them, then repair" in capsys.readouterr().err.splitlines()[-1]
    lease.release()
    assert shard_files(run.root) == before and not run.damaged.exists() and run.index.exists()


ELSEWHERE = process.identity() | {"host": "another-machine"}


@pytest.mark.parametrize("holder", [gone_process(), ELSEWHERE], ids=["gone", "silent elsewhere"])
def test_what_a_dead_worker_left_blocks_neither_the_repair_nor_the_next_run(
    run: RunDir, command: Callable[..., int], holder: dict[str, Any]
) -> None:
    flip(run.tar(1), 2000)
    run.lease(1).write_text(json.dumps({"worker": "w", "process": holder, "beat": 7}))
    started_s = time.monotonic()
    assert command() == EXIT_WHOLE
    assert (time.monotonic() - started_s > 0.3) == (holder is ELSEWHERE)  # watched first, where it may be alive
    assert list(run.leases.iterdir()) == []


@pytest.mark.parametrize("name", ["shards", "damaged", "leases/000001"])
def test_planted_links_are_not_followed(
    run: RunDir, command: Callable[..., int], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    flip(run.tar(1), 2000)
    outside = run.root.parent / "outside"
    if (run.root / name).exists():
        (run.root / name).rename(outside)
    else:
        outside.mkdir()
    (run.root / name).symlink_to(outside)
    before = sorted(outside.iterdir())
    assert command() == EXIT_USER
    assert name in capsys.readouterr().err
    assert sorted(outside.iterdir()) == before


class Killed(BaseException):
    """What stands for SIGKILL in this process."""


def die_after(moves: int) -> Callable[[Path, Path], None]:
    left = iter(range(moves))

    def move(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        files.move(source, target)

    return move


MOVES = 4  # index, manifest, memory log, tar


@pytest.mark.parametrize("moves", range(MOVES))
@pytest.mark.parametrize("again", [True, False])
def test_killed_at_any_moment_it_leaves_a_run_that_goes_on(
    run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, moves: int, again: bool
) -> None:
    whole = shard_files(run.root)
    flip(run.tar(1), 2000)
    damaged = run.tar(1).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(repair, "move", die_after(moves))
        with pytest.raises(Killed):
            command()
    assert all(run.tar(shard).exists() for shard in run.committed()), "committed and no tar"
    assert (1 in run.committed()) == (moves < 2)
    assert not (run.index.exists() and moves), "the index says that the run is done"
    if again or 1 in run.committed():
        assert command() == EXIT_WHOLE
    make_rest(run)
    assert show(run) == EXIT_WHOLE
    assert shard_files(run.root) == whole
    assert damaged in kept(run)


def test_a_tar_that_a_killed_repair_left_never_passes_for_the_new_one(
    run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair dies after the manifest, the next commit as well: the tar in the way has the size of the new one."""
    whole = shard_files(run.root)
    flip(run.tar(1), 2000)
    damaged = run.tar(1).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(repair, "move", die_after(2))
        with pytest.raises(Killed):
            command()
        patch.setattr(shards, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            full_attempt(load_plan(run), 1).commit()
    assert run.tar(1).read_bytes() == damaged and 1 in run.committed()
    assert is_done(run, 1)
    assert shard_files(run.root) == whole
    make_rest(run)
    assert show(run) == EXIT_WHOLE
    assert damaged in kept(run)


def cut_off_commit(run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> shards.Attempt:
    """Shard 1 committed anew, its worker gone when the manifest was in and nothing else."""
    run.tar(1).unlink()
    assert command() == EXIT_WHOLE
    attempt = full_attempt(load_plan(run), 1)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            attempt.commit()
    assert not run.tar(1).exists() and 1 in run.committed()
    return attempt


def test_a_commit_that_was_cut_off_is_finished_and_not_undone(
    run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shard_files(run.root)
    cut_off_commit(run, command, monkeypatch)
    before = contents(run)
    capsys.readouterr()
    assert command("--dry-run") == EXIT_WHOLE
    assert contents(run) == before
    assert command() == EXIT_WHOLE
    assert "set aside:" not in capsys.readouterr().out
    assert shard_files(run.root) == whole


def test_damaged_bytes_in_work_do_not_come_back(
    run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a resume nor by the writer itself, stopped with the manifest in its hands."""
    whole = shard_files(run.root)
    attempt = cut_off_commit(run, command, monkeypatch)
    held = read_manifest(run, 1)
    flip(attempt.files.tar, 2000)
    assert command() == EXIT_WHOLE
    assert run.attempts(1) == []
    with pytest.raises(BrokenRunError, match="is missing"):
        publish(run, held)
    assert not run.tar(1).exists()
    resumed = start_attempt(load_plan(run), 1)
    resumed.resume()
    assert resumed.rows == 0
    resumed.discard()
    make_rest(run)
    assert shard_files(run.root) == whole
    publish(run, held)  # it wakes even later
    assert show(run) == EXIT_WHOLE


def test_another_attempts_sound_rows_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=3)
    finish_run(plan)
    left = leave_attempt(plan, 2)
    flip(left.files.tar, -1)
    flip(plan.run.tar(0), 2000)
    assert repair.repair(plan.run) == EXIT_WHOLE
    attempt = start_attempt(plan)
    attempt.resume()
    attempt.close()
    assert attempt.rows == 2


STOPS = ["sync", "write_new", "refuse_replaced", "sync_directory", "put", "publish"]


@pytest.mark.parametrize("remade", [True, False])
@pytest.mark.parametrize("stop", STOPS)
def test_a_writer_stopped_anywhere_in_its_commit_wakes_after_a_repair(
    run: RunDir, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, stop: str, remade: bool
) -> None:
    """It was taken for dead: another made the shard, the run was swept, the shard damaged and repaired.

    What the protocol guarantees: it links a manifest only while its own tar is in work/, which the sweep removed;
    and where it had won before it was stopped, what it won was set aside as any other shard.
    """
    whole = shard_files(run.root)
    run.tar(1).unlink()
    assert command() == EXIT_WHOLE
    stopped = full_attempt(load_plan(run), 1)
    real = getattr(shards, stop)
    with monkeypatch.context() as patch:

        def sleep_through_it(*arguments: Any) -> Any:
            patch.setattr(shards, stop, real)
            meanwhile()
            return real(*arguments)

        def meanwhile() -> None:
            if 1 not in run.committed():
                assert full_attempt(load_plan(run), 1).commit()
            shards.sweep(run)
            assert run.attempts(1) == []
            flip(run.tar(1), 2000)
            assert command() == EXIT_WHOLE
            if remade:
                make_rest(run)

        patch.setattr(shards, stop, sleep_through_it)
        try:
            won = stopped.commit()
        except (FileNotFoundError, BrokenRunError):
            won = False
            assert not remade or stop in ("publish",), "it should just have lost"
    assert not won or remade
    assert all(run.tar(shard).exists() for shard in run.committed()), "committed and no tar"
    make_rest(run)
    assert show(run) == EXIT_WHOLE
    assert shard_files(run.root) == whole


def test_a_worker_stopped_by_a_signal_wakes_after_a_repair(tmp_path: Path) -> None:
    """The same through the commands, with SIGSTOP."""
    prompts = write_prompts(tmp_path / "p.txt", 24)
    root = tmp_path / "run"
    assert front(root, prompts, "launch.lease_timeout_s=0.5").returncode == 0
    whole = shard_files(root)
    run = RunDir(root)
    flip(run.tar(1), 2000)
    assert run_repair(root).returncode == 0
    assert verify(root).returncode == 75
    slow = subprocess.Popen(
        [*FAKE[:-1], "worker", str(root), "0", "1"], cwd=ROOT, env=os.environ | {"FAKE_STEP_S": "0.5"}
    )
    try:
        wait_for(lambda: list(run.work.glob("000001.*.tar")))
        slow.send_signal(signal.SIGSTOP)
        assert front(root, prompts, "launch.lease_timeout_s=0.5").returncode == 0
        flip(run.tar(1), 2000)
        repaired = run_repair(root)
        assert (repaired.returncode, repaired.stderr) == (0, "")
        slow.send_signal(signal.SIGCONT)
        slow.wait(60)
        assert all(run.tar(shard).exists() for shard in run.committed())
        assert front(root, prompts, "launch.lease_timeout_s=0.5").returncode == 0
    finally:
        slow.kill()
        slow.wait()
    assert shard_files(root) == whole
    done = verify(root)
    assert (done.returncode, done.stderr) == (0, "")


def run_repair(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batchgen.repair", str(root)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_key_planned_twice_is_beyond_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path)
    run = RunDir(Path(config.run_dir))
    twice = [Shard(index, (Batch(0, (make_prompt("twice"),)),)) for index in range(2)]
    assert save_plan(run, run.plan, "run", 0, "a" * 32, Sources(config, [], {"model": "tiny"}), twice)
    run.create_directories()
    finish_run(load_plan(run))
    before = contents(run)
    assert repair.repair(run) == EXIT_BROKEN
    assert "key twice appears 2 times" in capsys.readouterr().err
    assert contents(run) == before
