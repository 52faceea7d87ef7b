"""What a job reads and where its results go: the model, the cache, the disk of a node, the address of the copies."""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from batchgen.config.schema import Config, ModelConfig
from batchgen.errors import ModelError, UserError, in_one_line
from batchgen.evening.download import to_download
from batchgen.models.find import ModelFiles, check_model, find_model, in_cache, is_plain_hub
from batchgen.models.fingerprint import fingerprint_model
from batchgen.models.staging import scratch_folder
from batchgen.places import cache_dir
from batchgen.site.disk import check_writes, existing
from batchgen.site.findings import FAIL, OK, WARN, Finding
from batchgen.stores.filesystem import filesystem, is_address
from batchgen.units import gib

MODEL_LIMIT_S, COPY_LIMIT_S = 120.0, 30.0


def check_model_files(model: ModelConfig, scheduler: str) -> Iterator[Finding]:
    """Whether the model is here, complete, of a kind that runs, and can be read."""
    try:
        files = find_model(model)
    except ModelError as error:
        yield Finding(FAIL, "model", str(error))
        return
    if files is None:
        files = in_cache(model)
        if files is None:
            yield _not_here(model)
            return
    try:
        check_model(files, scheduler)
        fingerprint = fingerprint_model(files)
    except (ModelError, OSError) as error:
        yield Finding(FAIL, "model", in_one_line(error), "restore the model, or set model.path to another")
        return
    said = f"{model.path}: {gib(model_bytes(files))} in {files.folder}, readable from here"
    yield Finding(OK, "model", f"{said} ({fingerprint[:10]})")


def _not_here(model: ModelConfig) -> Finding:
    if not is_plain_hub(model):
        said = f"{model.path} is put together, unpacked or downloaded by the first command that makes a run"
        return Finding(WARN, "model", said, "start one where there is network, once; all nodes must see the cache")
    where = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    first = "run python -m batchgen.fetch with the same settings where there is network; all nodes must see that cache"
    wanted = to_download(model)
    if wanted.bytes is None:
        said = f"{model.path} is not in the cache ({where}); {wanted.why}"
        return Finding(FAIL, "model", said, first)
    said = f"{model.path} is not in the cache ({where}): {gib(wanted.bytes)} are downloaded first"
    return Finding(WARN, "model", said, first)


def model_bytes(files: ModelFiles) -> int:
    """How many bytes of weights a run loads. Raises ModelError and OSError."""
    return sum(path.stat().st_size for part in files.parts() for path in part.weights)


def check_cache() -> Iterator[Finding]:
    """Whether figures can be kept between runs."""
    for finding in check_writes(cache_dir(), "cache", "BATCHGEN_CACHE"):
        yield finding if finding.level == OK else Finding(WARN, "cache", finding.what, finding.advice)


def check_scratch(config: Config) -> Iterator[Finding]:
    """Whether the model can be copied to launch.scratch on this machine."""
    scratch = config.launch.scratch
    if scratch is None:
        return
    try:
        folder = scratch_folder(scratch)
    except ValueError as error:
        yield Finding(FAIL, "scratch", str(error), "check it on a node")
        return
    [wrote] = check_writes(folder, "scratch", "launch.scratch")
    if wrote.level != OK:
        yield wrote
        return
    if (why := _refuses_locks(existing(folder))) is not None:
        yield Finding(WARN, "scratch", f"{folder}: {why}", "the workers load the model from where it is")
        return
    files = _files_here(config.model)
    wanted_bytes = 0 if files is None else model_bytes(files)
    free_bytes = shutil.disk_usage(existing(folder)).free
    said = f"{folder}: {gib(free_bytes)} free for a model of {gib(wanted_bytes)}"
    if free_bytes < wanted_bytes:
        yield Finding(WARN, "scratch", said, "make room, or the workers load the model from where it is")
    else:
        yield Finding(OK, "scratch", said)


def _refuses_locks(place: Path) -> str | None:
    with tempfile.TemporaryFile(dir=place) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"files there cannot be locked ({error.strerror})"
    return None


def _files_here(model: ModelConfig) -> ModelFiles | None:
    try:
        return find_model(model) or in_cache(model)
    except ModelError:
        return None


def check_copies(copy_to: str | None) -> Iterator[Finding]:
    """Whether the place that shards are copied to takes a file, which is removed again. The hub is asked only."""
    if copy_to is None:
        return
    try:
        said = _ask_hub(copy_to) if copy_to.startswith("hf://") else _write_away(copy_to)
    except UserError as error:
        yield Finding(FAIL, "copies", str(error))
    except Exception as error:  # each store has errors of its own
        advice = "check the address, the network and your keys (docs/launching.md)"
        yield Finding(FAIL, "copies", f"output.copy_to={copy_to}: {in_one_line(error)}", advice)
    else:
        yield Finding(OK, "copies", f"{copy_to}: {said}")


def _write_away(copy_to: str) -> str:
    if not is_address(copy_to):
        [wrote] = check_writes(Path(copy_to.removeprefix("file://")), "copies", "output.copy_to")
        if wrote.level != OK:
            raise OSError(wrote.what)
        return wrote.what
    system, path = filesystem("output.copy_to", copy_to)
    name = f"{path.rstrip('/')}/batchgen-doctor-{uuid.uuid4().hex}"
    system.pipe_file(name, b"batchgen")
    try:
        if system.cat_file(name) != b"batchgen":
            raise OSError("what was written there reads differently")
    finally:
        system.rm_file(name)
    return "a file was written, read and removed"


def _ask_hub(copy_to: str) -> str:
    from huggingface_hub import HfApi

    repository = "/".join(copy_to.removeprefix("hf://datasets/").split("/")[:2])
    user = HfApi().whoami()["name"]
    try:
        HfApi().dataset_info(repository)
    except Exception as error:  # of several kinds
        if "404" not in str(error):
            raise
        return f"signed in as {user}; {repository} is not there yet"
    return f"signed in as {user}; {repository} is there"
