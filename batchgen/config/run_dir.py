"""The directory of a run: what it is called, and whether it can be there at all."""

import hashlib
import os
import re
import string
import tempfile
from collections.abc import Sequence
from errno import EACCES, EINVAL, ENAMETOOLONG, ENOENT, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, EROFS
from pathlib import Path, PurePath

from batchgen.config.schema import Config, without_query
from batchgen.errors import ConfigError

# These keys do not become part of the name of a run in a sweep.
_UNNAMED = ("job", "run_dir", "dry_run", "extend", "retry_failed", "price_per_gpu_hour")
_MAX_NAME_CHARS = 100
_NO_PLACE = (EACCES, EINVAL, ENAMETOOLONG, ENOENT, ENOSYS, ENOTDIR, EOPNOTSUPP, EPERM, EROFS)
_MAGIC = re.compile(r"[*?\[]")


def name_of_prompts(prompts: str | Sequence[str]) -> str:
    """The name of a job that has none: that of its first prompt file without its suffix, or of a glob's folder.

    A list may grow at its end, and a glob may match more files, without another name.
    """
    first = without_query(prompts if isinstance(prompts, str) else prompts[0])
    path = PurePath(os.path.expanduser(first))
    if _MAGIC.search(first):
        literal = []
        for part in path.parts:
            if _MAGIC.search(part):
                break
            literal.append(part)
        stem = Path(*literal).absolute().name
    else:
        stem = path.name.removesuffix(".gz")
        stem = PurePath(stem).stem if PurePath(stem).suffix else stem
    plain = re.sub(r"[^\w.-]+", "_", stem)[:_MAX_NAME_CHARS].lstrip("-.")
    if not any(char.isalnum() for char in plain):
        return "prompts"
    return plain if plain[0] in string.ascii_letters + string.digits + "_" else f"_{plain}"


def run_dir_of(config: Config) -> str:
    """Return the run directory; in a sweep (-m) each run gets its own, named by its overrides.

    The name depends only on the overrides, so that the same sweep resumes all its runs.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return config.run_dir
    overrides = sorted(
        override
        for override in map(without_query, hydra.overrides.task)
        if override.partition("=")[0] not in _UNNAMED and not override.startswith("launch.")
    )
    name = ",".join(overrides)
    allowed = string.ascii_letters + string.digits + "._=,+-"
    safe = "".join(char if char in allowed else "_" for char in name)
    if safe != name or len(safe) > _MAX_NAME_CHARS:
        safe = f"{safe[:_MAX_NAME_CHARS]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{config.run_dir}-{safe}" if overrides else config.run_dir


def check_run_dir(run_dir: str, dry_run: bool = False) -> None:
    """Refuse a directory that cannot be made or written to. Unless it is a `dry_run`, it tries, and leaves nothing.

    Raises ConfigError, and OSError where the disk is full or fails.
    """
    path = Path(run_dir)
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _refuse(run_dir, _why(path, error))
    there = path.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if there.is_symlink() and not there.exists():
        _refuse(run_dir, f"{there} is a link to {os.readlink(there)}, which does not exist")
    if not there.is_dir():
        _refuse(run_dir, f"{there} is a file")
    limit = os.pathconf(there, "PC_NAME_MAX")
    if any(len(os.fsencode(part)) > limit for part in path.parts):
        _refuse(run_dir, f"a name in it is longer than {limit} bytes")
    if dry_run and there == path.absolute():  # it reads what is there
        return
    if not os.access(there, os.W_OK | os.X_OK):
        _refuse(run_dir, f"{there} cannot be written to")
    if dry_run or there == path.absolute():
        return
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".batchgen-", dir=there))
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        _refuse(run_dir, f"nothing can be made in {there} ({error.strerror})")


def _why(path: Path, error: Exception) -> str:
    for parent in path.absolute().parents:
        if isinstance(error, NotADirectoryError) and parent.exists() and not parent.is_dir():
            return f"{parent} is a file"
    return str(getattr(error, "strerror", None) or error)


def _refuse(run_dir: str, why: str) -> None:
    raise ConfigError(f"run_dir={run_dir}: {why}; set run_dir=DIR to a directory that can be written to")
