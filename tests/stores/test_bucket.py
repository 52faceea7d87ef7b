"""Copies in a bucket, against a real S3 server, in memory and in a folder."""

import os
import re
from pathlib import Path

import pytest

from batchgen.errors import ConfigError, StoreError
from batchgen.files import sha256_bytes
from batchgen.stores import bucket
from batchgen.stores.bucket import Bucket, Digests
from tests.buckets import BUCKET, S3, s3_server

DATA = os.urandom(100) * 1000


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "000000.tar"
    path.write_bytes(DATA)
    return path


def test_a_copy_on_s3_is_checked_by_its_etag(server: S3, source: Path) -> None:
    store = Bucket(f"s3://{BUCKET}/runs/a/")
    store.check()
    assert server.names() == set(), "the trial leaves nothing"
    checked = store.put(source, "shards/000000.tar", Digests.of(source))
    assert (checked.how, server.read("runs/a/shards/000000.tar")) == ("by its size and the store's ETag", DATA)
    assert store.url("x") == f"s3://{BUCKET}/runs/a/x"
    facts = ("shards/000000.tar", len(DATA), sha256_bytes(DATA), checked.checksum)
    assert store.ask(*facts, deep=False) == (None, "by size and checksum")
    assert store.ask(*facts, deep=True) == (None, "read back, by its sha256")


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        (DATA[:-1] + b"!", "has another checksum than was copied"),
        (DATA[:-1], "has 99,999 bytes, but 100,000 were committed"),
        (None, "is missing there"),
    ],
)
def test_a_copy_that_came_to_harm(server: S3, source: Path, there: bytes | None, problem: str) -> None:
    store = Bucket(f"s3://{BUCKET}/b")
    checked = store.put(source, "a.tar", Digests.of(source))
    if there is None:
        server.client().delete_object(Bucket=BUCKET, Key="b/a.tar")
    else:
        server.client().put_object(Bucket=BUCKET, Key="b/a.tar", Body=there)
    facts = ("a.tar", len(DATA), sha256_bytes(DATA), checked.checksum)
    assert store.ask(*facts, deep=False)[0] == problem
    assert store.ask(*facts, deep=True)[0] in (problem, "differs from what was committed")


def test_a_large_file_goes_in_parts(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_PART_BYTES", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 11 + b"end")
    checked = Bucket(f"s3://{BUCKET}/c").put(path, "large", Digests.of(path))
    assert checked.how == "by its size and the store's ETag" and str(checked.checksum).endswith("-3")


def test_other_etags_have_the_copy_read_back(server: S3, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_checksum", lambda info: "etag:made-with-a-key-of-the-store")
    checked = Bucket(f"s3://{BUCKET}/d").put(source, "a.tar", Digests.of(source))
    assert checked.how == "read back, by its sha256"


def test_a_copy_that_differs_is_refused(server: S3, source: Path) -> None:
    store = Bucket(f"s3://{BUCKET}/e")
    digests = Digests.of(source)
    source.write_bytes(DATA[::-1] + b"1")  # changed after it was hashed, as by a bad cable
    with pytest.raises(StoreError, match=r"the copy s3://night/e/a\.tar differs from what was committed"):
        store.put(source, "a.tar", digests)


def test_mistakes_are_told_before_any_work(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"copy_to=s3://nowhere/a cannot be written to: .*bucket does not exist"):
        Bucket("s3://nowhere/a").check()
    with pytest.raises(ConfigError, match="must be an address such as s3://BUCKET/FOLDER, or the full path"):
        Bucket("some/folder")
    with pytest.raises(ConfigError, match="must not hold a password"):
        Bucket("sftp://me:secret@host/folder")
    store = Bucket(f"s3://{BUCKET}/f")

    def refuse(*_: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store._system, "pipe_file", refuse)
    with pytest.raises(ConfigError, match="cannot be written to: Access Denied"):
        store.check()


def test_no_credentials(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(ConfigError, match="Unable to locate credentials"):
            Bucket(f"s3://{BUCKET}/g").check()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_is_away_is_no_mistake(server: S3, source: Path) -> None:
    store = Bucket(f"s3://{BUCKET}/h")
    server.go()
    try:
        with pytest.raises(StoreError, match="cannot be reached"):
            store.check()
        with pytest.raises(StoreError, match="cannot be written"):
            store.put(source, "a.tar", Digests.of(source))
        with pytest.raises(StoreError, match="cannot be read"):
            store.ask("a.tar", 1, "", None, deep=False)
    finally:
        server.come()


def test_a_folder_of_this_machine(tmp_path: Path, source: Path) -> None:
    store = Bucket(str(tmp_path / "there"))
    store.check()
    checked = store.put(source, "shards/a.tar", Digests.of(source))
    assert (checked.how, checked.checksum) == ("read back, by its sha256", None)
    assert (tmp_path / "there" / "shards" / "a.tar").read_bytes() == DATA
    facts = ("shards/a.tar", len(DATA), sha256_bytes(DATA), None)
    assert store.ask(*facts, deep=False) == (None, "by size")
    (tmp_path / "there" / "shards" / "a.tar").write_bytes(DATA[:-1] + b"!")
    assert store.ask(*facts, deep=True)[0] == "differs from what was committed"
    with pytest.raises(ConfigError, match=re.escape(f"there is no folder {tmp_path}/no")):
        Bucket(f"{tmp_path}/no/such").check()


def test_memory(source: Path) -> None:
    store = Bucket("memory://night/a")
    store.check()
    assert store.put(source, "a.tar", Digests.of(source)).how == "read back, by its sha256"
    assert store.ask("a.tar", len(DATA), sha256_bytes(DATA), None, deep=False) == (None, "by size")
    assert store.ask("b.tar", len(DATA), sha256_bytes(DATA), None, deep=False) == ("is missing there", "by its name")
