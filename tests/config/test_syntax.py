"""Files that are no YAML in UTF-8: the line, and what to write there."""

from pathlib import Path

import pytest
import yaml

from batchgen.config.syntax import Unreadable, read_text, syntax_problem

HEAD = "job:\n  name: x\n"


@pytest.mark.parametrize(
    ("data", "place", "said"),
    [
        ((HEAD + "  negative_prompt: café\n").encode("cp1252"), ":3", "0xe9 is not UTF-8, maybe cp1252"),
        (HEAD.encode("utf-16"), "", "UTF-16"),
        (HEAD.encode("utf-16-le"), "", "UTF-16"),
        (HEAD.encode("utf-8-sig"), ":1", "byte order mark"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, data: bytes, place: str, said: str) -> None:
    (tmp_path / "x.yaml").write_bytes(data)
    found = read_text(tmp_path / "x.yaml")
    assert isinstance(found, Unreadable)
    assert found.place == place and said in found.problem and "save the file as UTF-8" in found.problem


def test_a_text_is_read_and_a_directory_is_not(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: é\n", encoding="utf-8")
    assert read_text(tmp_path / "x.yaml") == "a: é\n"
    assert isinstance(read_text(tmp_path), Unreadable)


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ("  negative_prompt: a: b\n", 3, 'in quotes: negative_prompt: "a: b"'),
        ("  negative_prompt: @home\n", 3, 'in quotes: negative_prompt: "@home"'),
        ("  negative_prompt: *bold*\n", 3, 'in quotes: negative_prompt: "*bold*"'),
        ("  negative_prompt: {red} car\n", 3, 'in quotes: negative_prompt: "{red} car"'),
        ('  negative_prompt: "blurry\n  steps: 3\n', 3, 'in quotes: negative_prompt: "blurry"'),
        ("  negative_prompt: [a, b\n  steps: 3\n", 3, 'in quotes: negative_prompt: "[a, b"'),
        ("  prompts: [p.txt\n", 3, "put ] at the end of it, such as prompts: [p.txt]"),
        ("  prompts: [p.txt,\n    q.txt\n", 3, "the bracket is not closed: put ] at the end"),
        ("  prompts: [p.txt\n  steps: 3\n", 3, "such as prompts: [p.txt]"),
        ("  columns: {prompt: a\n", 3, "such as columns: {prompt: a}"),
        ("\tsteps: 3\n", 3, "tab"),
        ("   steps: 3\n", 3, "indent all lines of a group alike"),
        (" steps: 3\n", 3, "indent all lines of a group alike"),
        ("  steps:3\n", 3, "a space after the colon"),
        ("---\nname: y\n", 3, "a second document"),
    ],
)
def test_the_line_that_is_wrong_and_what_to_write(lines: str, line: int, said: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        yaml.compose(HEAD + lines, Loader=yaml.SafeLoader)
    found, problem = syntax_problem(caught.value, HEAD + lines)
    assert (found, said in problem) == (line, True), problem


def test_an_advised_line_is_yaml() -> None:
    text = HEAD + '  negative_prompt: a "b": c\n'
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        yaml.compose(text, Loader=yaml.SafeLoader)
    advised = syntax_problem(caught.value, text)[1].partition("in quotes: ")[2]
    assert yaml.safe_load(advised) == {"negative_prompt": 'a "b": c'}
