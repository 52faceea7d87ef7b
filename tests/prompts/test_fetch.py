"""Prompt files behind addresses: fetched once, named without secrets, and what is said where one cannot be had."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from batchgen.errors import ConfigError, PromptError
from batchgen.prompts import Fetcher, Reading, fetch, find_files, read_prompts
from batchgen.types import PromptFile, Row
from tests.prompts.reading import error_of
from tests.web import Web, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(fetch, "_WAITS_S", (0.0, 0.0))
    with serving() as server:
        yield server


@pytest.fixture
def memory() -> Iterator[Any]:
    """A store in memory, by the names of its files."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    (tmp_path / "fetched").mkdir()
    return Fetcher(tmp_path / "fetched", {})


def texts(files: list[PromptFile]) -> list[tuple[str, str]]:
    rows = read_prompts(files, Reading())
    return [(row.source, row.prompt) for row in rows if isinstance(row, Row)]


def test_addresses_globs_and_local_files_are_read_in_order_and_each_once(
    tmp_path: Path, memory: Any, web: Web, fetcher: Fetcher
) -> None:
    (tmp_path / "here.txt").write_text("hen\n")
    memory.pipe({"/b/two.jsonl": b'{"prompt": "owl"}\n', "/b/one.txt": b"ape\n", "/b/deep/no.txt": b"no"})
    web.files["p.csv"] = b"prompt,steps\nfox,3\n"
    given = ["here.txt", web.address("p.csv"), "memory://b/*.*", "memory://b/one.txt", web.address("p.csv")]
    files = find_files(given, tmp_path, fetcher.files)
    assert texts(files) == [
        (str(tmp_path / "here.txt"), "hen"),
        (web.address("p.csv"), "fox"),
        ("memory:///b/one.txt", "ape"),
        ("memory:///b/two.jsonl", "owl"),
    ]
    assert web.asked == ["/p.csv"]


def test_the_query_of_an_address_is_sent_and_not_kept(web: Web, fetcher: Fetcher) -> None:
    web.files["my%20p.csv"] = b"prompt\nfox\n"
    [file] = fetcher.files(web.address("my%20p.csv?X-Amz-Signature=secret&b=1#part"))
    assert web.asked == ["/my%20p.csv?X-Amz-Signature=secret&b=1"]
    assert (file.name, file.path.name) == (web.address("my%20p.csv"), "my_p.csv")
    error_of(lambda: fetcher.files(web.address("my%20p.csv?page=2")), file.name, "two different queries", "download")


def test_the_content_says_whether_it_is_gzipped(memory: Any, fetcher: Fetcher) -> None:
    import gzip

    memory.pipe({"/b/p.txt": gzip.compress(b"fox\n"), "/b/q.jsonl.gz": gzip.compress(b'"hen"\n')})
    assert [text for _, text in texts(fetcher.files("memory://b/p.txt") + fetcher.files("memory://b/q*"))] == [
        "fox", "hen"
    ]  # fmt: skip


def test_a_server_that_is_busy_or_ends_too_early_is_asked_again(web: Web, fetcher: Fetcher) -> None:
    web.files["p.txt"] = b"fox\n"
    web.answers = [503, "cut"]
    [file] = fetcher.files(web.address("p.txt"))
    assert (file.path.read_bytes(), len(web.asked)) == (b"fox\n", 3)


@pytest.mark.parametrize(
    ("answers", "asked", "words"),
    [
        ([], 1, ["there is no such file (404)", "correct the address in job.prompts"]),
        ([403], 1, ["access is denied (403)", "download it", "signed"]),
        ([401], 1, ["access is denied (401)"]),
        ([503, 503, 503], 3, ["the server answers 503 Service Unavailable", "try again later"]),
        ([400], 1, ["400 Bad Request"]),
        (["page"], 1, ["a page to look at", "Raw"]),
    ],
)
def test_what_a_server_refuses_is_told_in_a_line(
    web: Web, fetcher: Fetcher, answers: list[int | str], asked: int, words: list[str]
) -> None:
    web.answers = answers
    message = error_of(lambda: fetcher.files(web.address("p.txt?key=secret")), web.address("p.txt"), *words)
    assert "secret" not in message
    assert len(web.asked) == asked


def test_a_machine_without_network_is_told(fetcher: Fetcher) -> None:
    error_of(lambda: fetcher.files("http://127.0.0.1:9/p.txt"), "cannot be reached", "refused", "download it")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://me:secret@host/p.txt", ["address of host", "password", "leave them out"]),
        ("https://me@host/p.txt", ["address of host"]),
        ("s3://key:secret@bucket/p.txt", ["address of bucket"]),
        ("https://host/*.txt", ["https://host/*.txt", "the web cannot list files", "name each file"]),
        ("zip://a.txt::https://host/p.zip?secret", ["zip://a.txt::https://host/p.zip", "without ::"]),
        ("memory://b/p.xlsx", ["p.xlsx", "spreadsheet"]),
        ("memory://b/p.doc", ["memory:///b/p.doc", "unknown suffix"]),
        ("memory://b/none.txt", ["memory:///b/none.txt", "no such file (404)"]),
        ("memory://b/none*.txt", ["memory://b/none*.txt", "no file matches it"]),
        ("memory://b/folder.txt", ["memory:///b/folder.txt", "is not a file"]),
    ],
)
def test_addresses_that_cannot_be_used(memory: Any, fetcher: Fetcher, address: str, words: list[str]) -> None:
    memory.pipe({"/b/folder.txt/a.txt": b"a"})
    assert "secret" not in error_of(lambda: fetcher.files(address), *words)


def test_a_backend_that_lacks_is_an_error_of_the_configuration(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacks)
    with pytest.raises(ConfigError, match=r"job\.prompts=s3://b/p\.txt needs .* pip install 'batchgen\[s3\]'"):
        fetcher.files("s3://b/p.txt")


class HubError(Exception):
    """An error as huggingface_hub raises it: the status is in its response."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} Client Error")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HubError(401), ["access is denied (401)", "set HF_TOKEN"]),
        (HubError(404), ["no such file (404)", "if it is private, set HF_TOKEN"]),
        (FileNotFoundError("datasets/o/n/p.jsonl"), ["no such file (404)"]),
        (
            ValueError("the id must be 'namespace/name'"),
            ["cannot be used (the id", "correct the address"],
        ),
        (ConnectionError("Name or service not known\n"), ["cannot be reached (Name or service not known)"]),
    ],
)
def test_errors_of_the_hub(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, error: Exception, words: list[str]
) -> None:
    def info(path: str) -> None:
        raise error

    hub = SimpleNamespace(
        invalidate_cache=lambda: None,
        exists=lambda path: False,
        unstrip_protocol=lambda path: f"hf://{path}",
        info=info,
    )
    monkeypatch.setattr(fetch, "filesystem", lambda key, address: (hub, address.removeprefix("hf://")))
    error_of(lambda: fetcher.files("hf://datasets/o/n@main/p.jsonl"), "hf://datasets/o/n@main/p.jsonl", *words)


def test_a_disk_that_is_full_is_no_fault_of_the_store(
    web: Web, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    web.files["p.txt"] = b"fox\n"
    monkeypatch.setattr("batchgen.prompts.fetch.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        fetcher.files(web.address("p.txt"))


def test_the_copies_of_the_plan_count_where_files_cannot_be_had(
    tmp_path: Path, memory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"memory:///b/p.txt": "fox\n", "memory:///b/q.txt": "hen\n", "http://127.0.0.1:9/r.txt": "owl\n"}
    planned = {name: tmp_path / name.rpartition("/")[2] for name in names}
    for name, path in planned.items():
        path.write_text(names[name])
    (tmp_path / "fetched").mkdir()
    fetcher = Fetcher(tmp_path / "fetched", planned)
    for given, kept in (
        ("memory://b/p.txt", [("memory:///b/p.txt", "fox")]),
        ("memory://b/*.txt", [("memory:///b/p.txt", "fox"), ("memory:///b/q.txt", "hen")]),
        ("http://127.0.0.1:9/r.txt?secret", [("http://127.0.0.1:9/r.txt", "owl")]),
    ):
        files = fetcher.files(given)
        assert texts(files) == kept
        assert not {file.path for file in files} & set(planned.values()), "the plan may be moved away"
    said = capsys.readouterr().err
    assert "memory:///b/p.txt: there is no such file (404): the copy in the plan counts\n" in said
    assert "http://127.0.0.1:9/r.txt: it cannot be reached (Connection refused)" in said and "secret" not in said
    with pytest.raises(PromptError, match="no such file"):
        fetcher.files("memory://b/other.txt")
