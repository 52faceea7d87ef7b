"""Writes that survive a crash: names appear whole and replace nothing, and a sealed line shows any damage."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batchgen import files
from batchgen.files import put, put_new, replace, seal, supports_link, to_json, unseal, write_all, write_new

RECORD = {"shard": 7, "samples": [{"key": "a", "status": "ok"}], "reason": None, "text": 'a "fox" \u00fc'}


def no_link(code: int) -> Callable[[Path, Path], None]:
    def link(source: Path, target: Path) -> None:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists")
        raise OSError(code, "no links here")

    return link


@pytest.fixture(params=["links", "no links"])
def either_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_link(errno.EPERM))


@pytest.mark.usefixtures("either_file_system")
class TestPut:
    """`put` and `put_new`, with hard links and where there are none."""

    def test_put_gives_a_file_a_second_name(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"new")
        assert put(source, target)
        assert (source.read_bytes(), target.read_bytes()) == (b"new", b"new")

    def test_put_never_replaces(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"new")
        target.write_bytes(b"old")
        assert not put(source, target)
        assert target.read_bytes() == b"old"

    def test_put_of_what_is_not_there_raises_and_makes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            put(tmp_path / "source", tmp_path / "target")
        assert list(tmp_path.iterdir()) == []

    def test_put_new_writes_once_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        target = tmp_path / "target"
        assert put_new(target, b"first")
        assert not put_new(target, b"second")
        assert target.read_bytes() == b"first"
        assert list(tmp_path.iterdir()) == [target]


def test_put_knows_its_own_file(tmp_path: Path) -> None:
    """NFS may do a link, lose the answer, try again and say that the name is there."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.hardlink_to(source)
    assert put(source, target)


def test_put_passes_on_errors_that_say_nothing_about_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"new")
    monkeypatch.setattr(os, "link", no_link(errno.ENOSPC))
    with pytest.raises(OSError, match="no links here"):
        put(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(("code", "supported"), [(None, True), (errno.EPERM, False), (errno.ENOTSUP, False)])
def test_supports_link_tries_it_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, supported: bool
) -> None:
    if code is not None:
        monkeypatch.setattr(os, "link", no_link(code))
    assert supports_link(tmp_path) == supported
    assert list(tmp_path.iterdir()) == []


def test_write_new_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_write_all_goes_on_after_a_short_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written = bytearray()

    def short_write(_: int, data: memoryview) -> int:
        written.extend(data[:3])
        return min(3, len(data))

    monkeypatch.setattr(os, "write", short_write)
    write_all(0, b"0123456789")
    assert bytes(written) == b"0123456789"


@pytest.mark.parametrize("durable", [True, False])
def test_replace_swaps_the_content_and_leaves_nothing_else(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        replace(path, content, durable)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part_of_what_replace_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(fd: int, data: bytes) -> None:
        os.write(fd, data[:1])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files, "write_all", fail)
    with pytest.raises(OSError, match="full"):
        replace(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("record", [RECORD, {"checksum": "of one's own"}, {"nested": {"checksum": [1.5, True]}}])
def test_unseal_gives_back_what_was_sealed(record: dict[str, object]) -> None:
    line = seal(record)
    assert unseal(line) == record
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")


def test_every_flipped_bit_of_a_sealed_line_is_caught() -> None:
    line = seal(RECORD)
    for place in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[place] ^= 1 << bit
            assert unseal(bytes(damaged)) is None, (place, bit)


def test_every_truncation_of_a_sealed_line_is_caught() -> None:
    line = seal(RECORD)
    assert [length for length in range(len(line)) if unseal(line[:length]) is not None] == []


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"[1]\n", seal(RECORD) * 2, b" " + seal(RECORD)])
def test_what_was_not_sealed_is_not_unsealed(line: bytes) -> None:
    assert unseal(line) is None


def test_json_is_one_line_of_ascii_in_the_order_given() -> None:
    assert to_json({"b": "\u00fc\n", "a": [1, 2]}) == '{"b":"\\u00fc\\n","a":[1,2]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_other_readers_cannot_read(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"value": value})
