"""Addresses, and the file systems behind them."""

import fsspec
import pytest

from batchgen.errors import ConfigError
from batchgen.stores.filesystem import filesystem, is_address


@pytest.mark.parametrize("text", ["s3://bucket/a", "hf://datasets/a/b", "https://host/p.csv", "memory://a"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["a.csv", "/a/b.txt", "C:\\a.txt", "a: b", "file:///a/b.txt", "s3://", "~/a.csv"])
def test_paths(text: str) -> None:
    assert not is_address(text)


def test_a_known_address() -> None:
    system, path = filesystem("output.copy_to", "memory://bucket/folder")
    assert (type(system).__name__, path) == ("MemoryFileSystem", "/bucket/folder")


def test_an_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match=r"output\.copy_to=nope://a is not an address that fsspec knows"):
        filesystem("output.copy_to", "nope://a")


def test_a_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'batchgen\[s3\]'"):
        filesystem("output.copy_to", "s3://bucket")
    with pytest.raises(ConfigError, match="Install s3fs"):
        filesystem("output.copy_to", "other://bucket")
