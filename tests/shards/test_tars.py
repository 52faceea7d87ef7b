"""Tars depend on nothing but the samples, and everybody can read them."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from batchgen.shards.tars import END_OF_TAR, read_samples, tar_members
from batchgen.types import Sample
from tests.builders import fake_sample, make_prompt

SAMPLES = [fake_sample(make_prompt(key, seed=seed)) for seed, key in enumerate(("000000000001-00", "own_key", "a-01"))]


@pytest.fixture
def tar_path(tmp_path: Path) -> Path:
    path = tmp_path / "000000.tar"
    path.write_bytes(b"".join(map(tar_members, SAMPLES)) + END_OF_TAR)
    return path


def test_members_are_sorted_plain_ustar_files_of_nobody_at_no_time(tar_path: Path) -> None:
    with tarfile.open(tar_path) as tar:
        members = tar.getmembers()
    names = [f"{sample.key}.{extension}" for sample in SAMPLES for extension in ("json", "png", "txt")]
    assert [member.name for member in members] == names
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert all(member.isreg() for member in members)
    assert tar_path.read_bytes()[257:265] == b"ustar\x0000"


def test_the_same_files_in_any_order_are_the_same_bytes() -> None:
    sample = SAMPLES[0]
    turned = Sample(sample.key, sample.status, dict(reversed(sample.files.items())))
    assert tar_members(turned) == tar_members(sample)


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513])
def test_files_of_any_size_come_back(size_bytes: int) -> None:
    sample = Sample("key", "ok", {"png": bytes(size_bytes), "txt": b"fox"})
    data = tar_members(sample)
    assert len(data) % tarfile.BLOCKSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data + END_OF_TAR)) as tar:
        contents = [tar.extractfile(member) for member in tar]
        assert [content.read() for content in contents if content] == [bytes(size_bytes), b"fox"]


def test_read_samples_gives_back_each_sample(tar_path: Path) -> None:
    assert list(read_samples(tar_path)) == [(sample.key, sample.files) for sample in SAMPLES]


def test_a_sample_without_files_takes_no_room(tmp_path: Path) -> None:
    assert tar_members(Sample("key", "failed", reason="blank")) == b""
    (tmp_path / "empty.tar").write_bytes(END_OF_TAR)
    assert list(read_samples(tmp_path / "empty.tar")) == []


def test_a_tar_that_is_not_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "not.tar").write_bytes(b"x" * 2048)
    with pytest.raises(tarfile.TarError):
        list(read_samples(tmp_path / "not.tar"))


def test_webdataset_reads_it(tar_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    read = list(webdataset.WebDataset(os.fspath(tar_path), shardshuffle=False))
    files = [{name: data for name, data in one.items() if not name.startswith("__")} for one in read]
    assert [one["__key__"] for one in read] == [sample.key for sample in SAMPLES]
    assert files == [sample.files for sample in SAMPLES]
