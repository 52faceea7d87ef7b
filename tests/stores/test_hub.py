"""Copies in a data set on the hub: the real client against a stand-in server (tests/hubs.py).

huggingface_hub reads HF_ENDPOINT when it is imported, so these tests set its constant.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.errors import ConfigError, StoreError
from batchgen.files import sha256_bytes, sha256_file
from batchgen.stores.hub import Hub
from tests.hubs import REPO, TOKEN, hub_server
from tests.hubs import Hub as Server

ADDRESS = f"hf://datasets/{REPO}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, str]]:
    (tmp_path / "a.tar").write_bytes(b"tar" * 5000)
    (tmp_path / "a.json").write_bytes(b"{}\n")
    return [(tmp_path / "a.tar", "shards/a.tar"), (tmp_path / "a.json", "shards/a.json")]


def with_digests(files: list[tuple[Path, str]]) -> list[tuple[Path, str, str]]:
    return [(path, name, sha256_file(path)) for path, name in files]


def test_files_become_one_commit_and_are_checked(server: Server, files: list[tuple[Path, str]]) -> None:
    store = Hub(ADDRESS)
    store.check()
    added = store.upload(files)
    assert server.commits == [] and len(server.large) == 1
    store.commit(added, "2 files")
    assert server.commits == [["data/shards/a.tar", "data/shards/a.json"]]
    tar, manifest = store.checked(with_digests(files))
    assert (tar.how, manifest.how) == ("by its size and the hub's sha256", "by its size and git's id")
    assert store.url("shards/a.tar") == f"{ADDRESS}/data/shards/a.tar"
    data = files[0][0].read_bytes()
    facts = ("shards/a.tar", len(data), sha256_bytes(data), tar.checksum)
    assert store.ask(*facts, deep=False) == (None, "by size and checksum")
    server.files["data/shards/a.tar"] = data[:-1] + b"!"
    assert store.ask(*facts, deep=False)[0] == "differs from what was committed"
    with pytest.raises(StoreError, match=r"the copy .*/data/shards/a\.tar differs"):
        store.checked(with_digests(files))
    del server.files["data/shards/a.tar"]
    assert store.ask(*facts, deep=False)[0] == "is missing there"


def test_a_busy_hub_is_tried_again_and_then_given_up(server: Server, files: list[tuple[Path, str]]) -> None:
    store, pauses = Hub(f"{ADDRESS}/night"), list[float]()
    server.busy = [412, 409, 412]
    store.commit(store.upload(files), "first", pauses.append)
    assert (len(server.commits), pauses) == (1, [4.0, 8.0, 16.0])
    assert server.commits[0][0] == "night/shards/a.tar"
    files[0][0].write_bytes(b"other")
    server.busy = [412] * 5
    with pytest.raises(StoreError, match="takes no commit: .*a commit has happened since"):
        store.commit(store.upload(files), "second", pauses.append)
    server.busy = [403]
    pauses.clear()
    with pytest.raises(StoreError, match="takes no commit"):
        store.commit(store.upload(files), "third", pauses.append)
    assert pauses == [], "a refusal is not tried again at once"


def test_mistakes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"hf://datasets/me/none cannot be written to: .*make the data set first"):
        Hub("hf://datasets/me/none").check()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError, match="Invalid username or password.*HF_TOKEN may write"):
        Hub(ADDRESS).check()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="needs a token: set the environment variable HF_TOKEN"):
        Hub(ADDRESS).check()


@pytest.mark.parametrize("address", ["hf://me/model", "hf://datasets/me", "hf://spaces/me/night", "hf://"])
def test_only_data_sets(address: str) -> None:
    with pytest.raises(ConfigError, match="must be hf://datasets/OWNER/NAME"):
        Hub(address)


def test_the_card_is_at_the_top_unless_a_folder_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\n---\n")
    for address, there in ((ADDRESS, "README.md"), (f"{ADDRESS}/night", "night/README.md")):
        store = Hub(address)
        assert not store.holds("README.md")
        store.commit(store.upload([(tmp_path / "README.md", "README.md")]), "card")
        assert store.holds("README.md") and there in server.files
        assert store.url("README.md") == f"{ADDRESS}/{there}"


def test_a_revision() -> None:
    assert Hub("hf://datasets/me/night@other").url("README.md") == "hf://datasets/me/night@other/README.md"
    assert Hub("hf://datasets/me/night@other/a/b/").url("x") == "hf://datasets/me/night@other/a/b/x"
