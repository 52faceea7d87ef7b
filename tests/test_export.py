"""Samples out of the tars as plain files: which, what is compared, and what a person is told."""

import io
import json
import sys
import tarfile

import pytest
from PIL import Image

from batchgen.errors import UserError
from batchgen.export import Wanted, export, show
from batchgen.files import seal, to_json, unseal
from batchgen.plan.store import load_plan
from batchgen.shards.copies import keep_record, new_record
from tests.builders import finish_run, flip, full_attempt, plan_run
from tests.commands import run, samples

ALL = ("png", "txt", "json")
ROWS = [{"prompt": f"fox {place}", "artist": "Ada" if place % 2 else "Bo", "score": place / 2} for place in range(9)]
KEYS = [f"{place:012d}-00" for place in range(9)]


@pytest.fixture
def plan(tmp_path):
    """A run of three shards of four, four and one image; the third image failed."""
    plan = plan_run(tmp_path, ROWS)
    finish_run(plan, failed=[KEYS[2]])
    return plan


def names(folder):
    """The names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_all_samples_are_written_as_they_are_in_the_tars(plan, tmp_path):
    to = tmp_path / "new" / "out"
    done = export(plan, Wanted(to, ALL))
    assert {path.name: path.read_bytes() for path in to.iterdir()} == samples(plan.run.root)
    assert (done.samples, done.files, done.there, done.code) == (8, 24, 0, 0)
    with Image.open(io.BytesIO((to / f"{KEYS[0]}.png").read_bytes())) as image:
        assert image.size == (64, 64)


def test_named_keys_are_found_by_the_plan_and_no_other_shard_is_looked_at(plan, tmp_path):
    for shard in (0, 2):
        plan.run.manifest(shard).unlink()
        plan.run.tar(shard).unlink()
    done = export(plan, Wanted(tmp_path / "out", ("png",), frozenset([KEYS[5], KEYS[6]])))
    assert names(tmp_path / "out") == [f"{KEYS[5]}.png", f"{KEYS[6]}.png"]
    assert done.problems == [] and done.code == 0


def test_columns_choose_samples(plan, tmp_path):
    for where, places in (
        ({"artist": "Ada"}, [1, 3, 5, 7]),
        ({"score": "3"}, [6]),
        ({"artist": "Bo", "score": "3.0"}, [6]),
        ({"prompt": "fox 4", "guidance": "7.5"}, [4]),
    ):
        to = tmp_path / to_json(where).encode().hex()
        assert export(plan, Wanted(to, ("txt",), None, where)).code == 0
        assert names(to) == [f"{KEYS[place]}.txt" for place in places]
    with pytest.raises(UserError, match=r"where=artist=Cy: none of the images has this value; there are Bo, Ada$"):
        export(plan, Wanted(tmp_path / "no", ALL, None, {"artist": "Cy"}))
    with pytest.raises(UserError, match=r"where=artst: no row has this column; did you mean artist\?"):
        export(plan, Wanted(tmp_path / "no", ALL, None, {"artst": "Ada"}))
    assert not (tmp_path / "no").exists()


def test_rows_without_an_image_are_found_and_told(plan, tmp_path, capsys):
    plan.run.manifest(2).unlink()
    for where in (["where=prompt=fox 8"], ["where=line=3"], ["where=artist=Bo", "where=score=4"]):
        assert show([str(plan.run.root), f"to={tmp_path / 'out'}", *where]) == 3
        told = capsys.readouterr().err.splitlines()
        assert told[0] == "batchgen: what where= asks for has no image: each failed, was filtered or is not made yet"
        assert len(told) == 2 and told[1].startswith("batchgen: 0 files of 0 samples written")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_compared_and_never_replaced(plan, tmp_path):
    to = tmp_path / "out"
    export(plan, Wanted(to, ("txt",)))
    (to / f"{KEYS[0]}.txt").write_text("fox 9")
    (to / f"{KEYS[1]}.txt").unlink()
    (to / f"{KEYS[3]}.txt").unlink()
    (to / f"{KEYS[3]}.txt").symlink_to(tmp_path / "elsewhere")
    done = export(plan, Wanted(to, ("txt",)))
    assert (done.files, done.there, done.code) == (1, 5, 2)
    assert done.differing == [to / f"{KEYS[0]}.txt", to / f"{KEYS[3]}.txt"]
    assert (to / f"{KEYS[0]}.txt").read_text() == "fox 9" and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("typed", [KEYS[4][:-1] + "1", f"{KEYS[4]}.png", KEYS[4][:-3]])
def test_a_key_that_is_not_there_is_refused_with_the_one_that_is_meant(plan, tmp_path, typed):
    with pytest.raises(UserError, match=f"has no image with the key {typed}.*did you mean .*{KEYS[4]}"):
        export(plan, Wanted(tmp_path / "out", ALL, frozenset([KEYS[0], typed])))
    assert not (tmp_path / "out").exists()


def test_a_key_without_an_image_says_why(plan, tmp_path):
    plan.run.manifest(2).unlink()
    done = export(plan, Wanted(tmp_path / "out", ALL, frozenset([KEYS[1], KEYS[2], KEYS[8]])))
    assert done.samples == 1 and done.code == 3
    assert done.imageless[KEYS[2]].startswith("failed: ")
    assert done.imageless[KEYS[8]] == "it is not made yet"


def test_an_image_that_was_tried_again_is_the_later_one(plan, tmp_path):
    plan = plan_run(tmp_path, ROWS, retry_failed=True)
    assert plan.shard_count == 4
    before = export(plan, Wanted(tmp_path / "out", ("txt",), frozenset([KEYS[2]])))
    assert before.code == 3 and before.samples == 0
    assert full_attempt(plan, 3).commit()
    done = export(plan, Wanted(tmp_path / "out", ("txt",), frozenset([KEYS[2]])))
    assert done.code == 0 and names(tmp_path / "out") == [f"{KEYS[2]}.txt"]
    assert export(plan, Wanted(tmp_path / "all", ("txt",))).samples == 9


def test_damage_is_told_and_nothing_damaged_is_written(plan, tmp_path):
    with tarfile.open(plan.run.tar(0)) as tar:
        offset = tar.getmember(f"{KEYS[1]}.png").offset_data
    flip(plan.run.tar(0), offset + 40)
    plan.run.tar(1).unlink()
    done = export(plan, Wanted(tmp_path / "out", ("png",)))
    assert names(tmp_path / "out") == [f"{KEYS[place]}.png" for place in (0, 3, 8)]
    assert done.code == 1 and len(done.problems) == 2
    assert f"{KEYS[1]}.png is damaged or missing: python -m batchgen.repair" in done.problems[0]
    assert done.problems[1] == "shard 000001's tar is missing"


def test_tars_that_left_this_disk_are_told_with_the_place_of_their_copies(plan, tmp_path, capsys):
    manifest = json.loads(plan.run.manifest(1).read_bytes())
    facts = {name: manifest[name] for name in ("run_id", "shard", "attempt", "bytes", "sha256")}
    place = {"to": "s3://a", "url": "s3://a/000001.tar", "checked": "by size", "store_checksum": None}
    keep_record(plan.run, new_record(**facts, **place, keeps_local=False))
    plan.run.tar(1).unlink()
    assert show([str(plan.run.root), f"to={tmp_path / 'out'}"]) == 1
    told = capsys.readouterr().err
    assert "1 shard of those asked for left this disk" in told and "000001.tar is at s3://a/000001.tar" in told
    assert "12 files of 4 samples written" in told
    assert show([str(plan.run.root), KEYS[0], f"to={tmp_path / 'out'}"]) == 0


def test_a_manifest_cannot_name_files_elsewhere(plan, tmp_path):
    path = plan.run.tar(2)
    path.write_bytes(path.read_bytes().replace(KEYS[8].encode(), b"../" + KEYS[8][3:].encode()))
    text = plan.run.manifest(2).read_text()
    record = unseal(text.encode())
    assert record is not None
    record["samples"][0]["key"] = "../" + KEYS[8][3:]
    plan.run.manifest(2).write_bytes(seal(record))
    before = names(tmp_path)
    assert export(plan, Wanted(tmp_path / "out", ("txt",))).samples == 7
    assert names(tmp_path) == sorted([*before, "out"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], r"say where the files go to: to=DIR, once"),
        (["to=a", "to=b"], r"to=DIR, once"),
        (["to=RUN/shards"], r"is inside the run"),
        (["to=FILE"], r"is not a directory"),
        (["to=a", "ext=jpg"], r"ext=jpg: the samples of this run have no such file; did you mean png"),
        (["to=a", "where=artist"], r"write where=COLUMN=VALUE"),
        (["to=a", "where=artist=Ada", "where=artist=Bo"], r"where=artist= is there twice"),
        (["to=a", "where=width=abc"], r"where=width=abc: none of the images has this value; there are 64$"),
        (["to=a", "wehre=artist=Ada"], r"wehre=artist=Ada: no such option; did you mean where\?"),
        (["to=a", "nobody"], r"has no image with the key nobody; its keys are like 000000000000-00, 000000000001-00"),
    ],
)
def test_mistakes_are_told(plan, tmp_path, words, told):
    file = tmp_path / "file"
    file.write_text("")
    words = [word.replace("RUN", str(plan.run.root)).replace("FILE", str(file)) for word in words]
    with pytest.raises(UserError, match=told):
        show([str(plan.run.root), *words])


def test_the_command(plan, tmp_path):
    command = [sys.executable, "-m", "batchgen.export", plan.run.root]
    done = run(command, KEYS[0], "to=out", "ext=png,json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "batchgen: 2 files of 1 sample written to out\n")
    assert names(tmp_path / "out") == [f"{KEYS[0]}.json", f"{KEYS[0]}.png"]
    done = run(command, "to=out", KEYS[0], cwd=tmp_path)  # in any order
    assert done.stderr == "batchgen: 1 file of 1 sample written to out, 2 were there already\n"
    done = run([sys.executable, "-m", "batchgen", "export"], tmp_path / "none", "to=out", cwd=tmp_path)
    assert done.returncode == 2 and "is not a run" in done.stderr


def test_the_plan_on_disk_is_enough(plan, tmp_path):
    assert export(load_plan(plan.run), Wanted(tmp_path / "out", ALL)).samples == 8
