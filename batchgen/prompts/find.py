"""The prompt files that a job names."""

import difflib
import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from batchgen.errors import PromptError
from batchgen.prompts.advice import unread_folder
from batchgen.prompts.formats import format_of
from batchgen.prompts.records import path_name
from batchgen.stores.filesystem import is_address
from batchgen.types import PromptFile


def find_files(
    patterns: Sequence[str], base: Path, fetch: Callable[[str], Sequence[PromptFile]] | None = None
) -> list[PromptFile]:
    """Return the prompt files that paths and globs (relative to `base`, ** and ~ allowed) name, each of them once.

    `fetch` brings the files of an address. Raises PromptError if a path is missing or a directory, a glob matches no
    file, or a suffix is unknown.
    """
    found: dict[str, PromptFile] = {}
    for pattern in patterns:
        if fetch is not None and is_address(pattern):
            found |= {file.name: file for file in fetch(pattern) if file.name not in found}
            continue
        path = base / os.path.expanduser(pattern)
        matches = [path] if os.path.exists(path) else _glob(pattern, base) if glob.has_magic(pattern) else []
        if not matches:
            raise PromptError(_missing(pattern, path, base))
        for match in matches:
            if not match.is_file():
                raise PromptError(f"{path_name(match)} {unread_folder(match)}")
            format_of(str(match))
            found.setdefault(os.path.realpath(match), PromptFile(match))
    return list(found.values())


def _glob(pattern: str, base: Path) -> list[Path]:
    names = glob.glob(os.path.expanduser(pattern), root_dir=base, recursive=True)
    return [path for name in sorted(set(names)) if not (path := base / name).is_dir()]


def _missing(pattern: str, path: Path, base: Path) -> str:
    if glob.has_magic(pattern):
        return f"no prompt file matches {path_name(pattern)} in {path_name(base.absolute())}"
    folder = path.absolute().parent
    try:
        names = os.listdir(folder)
    except OSError as error:
        problem = f"folder {path_name(folder)} cannot be read ({error.strerror})"
        return f"no prompt file {path_name(pattern)}: {problem}"
    near = difflib.get_close_matches(path.name, names)
    hint = f"; similar names there: {', '.join(map(path_name, near))}" if near else ""
    return f"no prompt file {path_name(pattern)} in {path_name(folder)}{hint}"
