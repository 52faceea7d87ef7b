"""`python -m batchgen.verify`: whatever is wrong with a run is named, and the exit code says which kind it is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES, UserError
from batchgen.files import seal, unseal
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, Sources, load_plan, save_plan
from batchgen.prepare import prepare
from batchgen.shards.copies import keep_record, new_record
from batchgen.types import Batch, Shard
from batchgen.verify import show, verify
from tests.builders import (
    MAKER,
    fake_image,
    finish_run,
    flip,
    full_attempt,
    make_config,
    make_prompt,
    plan_run,
    truncate,
)

PROMPTS = [f"fox {number}" for number in range(6)]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of two, made once."""
    root = tmp_path_factory.mktemp("finished")
    plan = plan_run(root, PROMPTS, output__batches_per_shard=1)
    finish_run(plan)
    return plan.run.root


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> RunDir:
    """A copy of the finished run, to be damaged."""
    return RunDir(Path(shutil.copytree(finished_run, tmp_path / "run")))


def problems(run: RunDir) -> list[str]:
    return verify(load_plan(run)).problems


def contents(run: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}


def reseal(path: Path, **changes: Any) -> None:
    """Change a manifest, with a checksum that is right."""
    manifest = unseal(path.read_bytes())
    assert manifest is not None
    path.write_bytes(seal(manifest | changes))


def edit_index(run: RunDir) -> None:
    index = json.loads(run.index.read_bytes())
    index["shards"][1]["samples"] -= 1
    run.index.write_text(json.dumps(index))


def swap_tars(run: RunDir) -> None:
    run.tar(0).rename(run.root / "aside")
    run.tar(1).rename(run.tar(0))
    (run.root / "aside").rename(run.tar(1))


def add_unplanned_shard(run: RunDir) -> None:
    shutil.copy(run.manifest(2), run.manifest(3))


def test_a_whole_run_is_whole_and_is_not_changed(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    assert show(run) == EXIT_WHOLE
    assert contents(run) == before
    out = capsys.readouterr().out
    assert "3 of 3 shards, 6 of 6 images checked, 0 failed, 0 rows rejected" in out
    assert out.splitlines()[-1] == "whole"


DAMAGES: dict[str, tuple[Callable[[RunDir], object], str]] = {
    "first byte of a tar": (lambda run: flip(run.tar(1), 0), "000001.tar is not the file that was committed"),
    "a byte of an image": (lambda run: flip(run.tar(1), 2000), "000001.tar is not the file that was committed"),
    "last byte of a tar": (lambda run: flip(run.tar(1), -1), "000001.tar is not the file that was committed"),
    "tar one byte short": (lambda run: truncate(run.tar(1), 1), "000001.tar is not the file that was committed"),
    "tar without its end": (lambda run: truncate(run.tar(1), 1024), "000001.tar is not the file that was committed"),
    "tar gone": (lambda run: run.tar(1).unlink(), "000001.tar is missing"),
    "tars swapped": (swap_tars, "000000.tar is not the file that was committed"),
    "manifest changed": (lambda run: flip(run.manifest(1), 50), "000001.json is damaged"),
    "manifest of another run": (lambda run: reseal(run.manifest(1), run_id="f" * 32), "belongs to another run or plan"),
    "manifest of another plan": (
        lambda run: reseal(run.manifest(1), plan_sha256="f"),
        "belongs to another run or plan",
    ),
    "manifest of another shard": (
        lambda run: shutil.copy(run.manifest(0), run.manifest(1)),
        "000001.json is damaged",
    ),
    "manifest that lists too little": (
        lambda run: reseal(run.manifest(1), samples=[]),
        "keys other than the planned ones",
    ),
    "manifest of no planned shard": (add_unplanned_shard, "000003.json does not belong to any planned shard"),
    "plan changed": (
        lambda run: flip(run.plan.shard(1), 30),
        "000001.jsonl of the plan cannot be read: it has changed",
    ),
    "plan of a shard gone": (lambda run: run.plan.shard(1).unlink(), "000001.jsonl of the plan"),
    "index torn": (lambda run: truncate(run.index, 9), "index.json is damaged"),
    "index wrong": (edit_index, "index.json does not list the shards as they are"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_changed(run: RunDir, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    act, expected = DAMAGES[damage]
    act(run)
    before = contents(run)
    assert show(run) == EXIT_BROKEN
    assert expected in capsys.readouterr().err
    assert contents(run) == before


def link_log(run: RunDir) -> None:
    run.memory_log(1).unlink()
    run.memory_log(1).symlink_to("/no/where")


def shorten_index(run: RunDir) -> None:
    """As it was before the run was extended."""
    index = json.loads(run.index.read_bytes())
    run.index.write_text(json.dumps(index | {"samples": 4, "shards": index["shards"][:2]}))


HARMLESS: dict[str, tuple[Callable[[RunDir], object], str]] = {
    "log gone": (lambda run: run.memory_log(1).unlink(), "memory log 000001.jsonl is missing"),
    "log cut": (lambda run: truncate(run.memory_log(1), 5), "memory log 000001.jsonl does not cover"),
    "log of another attempt": (
        lambda run: shutil.copy(run.memory_log(0), run.memory_log(1)),
        "memory log 000001.jsonl is missing or belongs to another attempt",
    ),
    "log a link": (
        link_log,
        "memory log 000001.jsonl is not a plain file",
    ),
    "all logs gone": (lambda run: shutil.rmtree(run.root / "logs"), "memory log 000002.jsonl is missing"),
    "index gone": (lambda run: run.index.unlink(), "the same command writes it"),
    "index of the run before it was extended": (shorten_index, "the same command writes it"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_touches_no_image_is_a_warning(run: RunDir, capsys: pytest.CaptureFixture[str], case: str) -> None:
    act, expected = HARMLESS[case]
    act(run)
    before = contents(run)
    assert show(run) == EXIT_WHOLE
    said = capsys.readouterr()
    assert said.err.startswith("batchgen: warning: ") and expected in said.err
    assert said.out.splitlines()[-1] == "whole"
    assert contents(run) == before


def test_damage_of_one_shard_does_not_hide_that_of_another(run: RunDir) -> None:
    flip(run.tar(0), 5)
    run.tar(2).unlink()
    first, second = problems(run)
    assert "000000.tar" in first
    assert "000002.tar" in second


def test_a_key_that_is_there_twice_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(tmp_path)
    run = RunDir(Path(config.run_dir))
    shards = [Shard(index, (Batch(0, (make_prompt("twice"),)),)) for index in range(2)]
    assert save_plan(run, run.plan, "run", 0, "a" * 32, Sources(config, [], {"model": "tiny"}), shards)
    run.create_directories()
    finish_run(load_plan(run))
    assert show(run) == EXIT_BROKEN
    assert "key twice appears 2 times" in capsys.readouterr().err


def test_an_image_of_another_size_than_planned_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path)
    small = make_prompt(width=32, height=32)
    monkeypatch.setattr("tests.builders.fake_image", lambda *_: fake_image(small))
    finish_run(plan)
    [problem] = verify(plan).problems
    assert "its image is 32x32 but was planned as 64x64" in problem


def test_an_unfinished_run_can_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    full_attempt(plan, 1).commit()
    assert show(plan.run) == EXIT_INTERRUPTED
    assert "1 of 3 shards, 2 of 6 images checked" in capsys.readouterr().out


def test_damage_counts_for_more_than_being_unfinished(run: RunDir) -> None:
    run.manifest(0).unlink()
    flip(run.tar(1), 5)
    assert show(run) == EXIT_BROKEN


def plan_with_one_failure(tmp_path: Path) -> Plan:
    plan = plan_run(tmp_path, PROMPTS, output__batches_per_shard=1)
    finish_run(plan, failed={plan.shard(1)[0].keys[0]})
    return plan


def test_failed_images_are_told_and_the_run_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(plan_with_one_failure(tmp_path).run) == EXIT_WHOLE_WITH_FAILURES
    assert "5 of 6 images checked, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(("fails_again", "code"), [(False, EXIT_WHOLE), (True, EXIT_WHOLE_WITH_FAILURES)])
def test_a_retry_of_a_failed_image_counts(tmp_path: Path, fails_again: bool, code: int) -> None:
    plan = plan_with_one_failure(tmp_path)
    retry = make_config(tmp_path, PROMPTS, output__batches_per_shard=1, retry_failed=True)
    plan = prepare(plan.run, retry)
    assert plan.shard_count == 4
    finish_run(plan, failed=set(plan.shard(3)[0].keys) if fails_again else set())
    assert show(plan.run) == code


def test_a_directory_that_is_no_run_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        show(RunDir(tmp_path))


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_images_larger_than_pillow_takes_for_bombs_are_verified_where_they_were_planned(
    tmp_path: Path, image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)  # these images have four times as many, and more
    plan = plan_run(tmp_path, PROMPTS[:2], output__format=image_format)
    monkeypatch.setattr("tests.builders.MAKER", replace(MAKER, image_format=image_format))
    finish_run(plan)
    assert problems(plan.run) == []


def test_an_image_of_another_size_than_planned_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.builders.fake_image", lambda prompt, finite=True: fake_image(replace(prompt, width=128)))
    plan = plan_run(tmp_path, PROMPTS[:1])
    finish_run(plan)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda image: pytest.fail("it was decoded"))
    assert problems(plan.run) == ["shard 0: 000000000000-00: its image is 128x64 but was planned as 64x64"]


def test_copies_that_lack_and_records_of_another_attempt(tmp_path, capsys):
    plan = plan_run(tmp_path, [f"fox {number}" for number in range(8)], output__copy_to=str(tmp_path))
    finish_run(plan)
    for copies in (False, True):
        assert show(plan.run, copies) == 75
        assert "2 shards not copied yet: all is whole here" in capsys.readouterr().out
    record = new_record(
        run_id=plan.run_id, shard=1, attempt="0" * 32, bytes=1, sha256="", to=str(tmp_path), url="", checked="",
        store_checksum=None, keeps_local=True,
    )  # fmt: skip
    keep_record(plan.run, record)
    assert show(plan.run) == 75, "without --copies what is here is checked"
    assert show(plan.run, copies=True) == 1
    assert "000001.json is about another attempt: remove it" in capsys.readouterr().err
