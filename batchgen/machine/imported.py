"""Which files a worker reads while it imports. They are noted in the user's cache, so that the next start can read them
ahead: there are thousands, and Python reads one after the other.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from batchgen.files import put_new, to_json
from batchgen.machine.versions import versions
from batchgen.places import cache_dir

_MOST_BYTES = 32 << 20  # of libraries of CUDA, which are larger, an import touches little


def note() -> None:
    """Note the files of what this process has imported, unless they are noted for these versions."""
    path = _path()
    with suppress(OSError):  # without the note, the next start takes longer
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            put_new(path, to_json(list(dict.fromkeys(_files()))).encode() + b"\n")


def noted() -> list[Path]:
    """The files that were noted; none where nothing was."""
    try:
        return [Path(str(one)) for one in json.loads(_path().read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def _files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        for file in (getattr(spec, "cached", None), getattr(spec, "origin", None)):
            if isinstance(file, str) and _is_small(Path(file)):
                yield file
                break  # of a module that is compiled, its source is not read
    # When it is imported, transformers looks for names in the sources of all of its models.
    transformers = getattr(sys.modules.get("transformers"), "__file__", None)
    if transformers is not None:
        yield from map(str, sorted(Path(transformers).parent.glob("models/*/*.py")))


def _is_small(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size <= _MOST_BYTES
    except OSError:
        return False


def _path() -> Path:
    digest = hashlib.sha256(to_json([sys.prefix, versions()]).encode()).hexdigest()
    return cache_dir() / "imports" / f"{digest[:32]}.json"
