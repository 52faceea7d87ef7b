"""What has to be had of a model before a run can begin: downloads from the hub, and a file that is unpacked."""

from collections.abc import Iterator
from dataclasses import dataclass

from batchgen.config.schema import ModelConfig
from batchgen.errors import BatchgenError
from batchgen.evening.lines import Line
from batchgen.models import checkpoint
from batchgen.models.find import is_plain_hub, try_unpacking
from batchgen.models.hub import is_offline, look
from batchgen.models.sources import cached
from batchgen.models.wants import Want, names_of
from batchgen.units import gib


@dataclass(frozen=True, slots=True)
class Download:
    """`bytes` to fetch; None if that is not known, with the reason in `why`."""

    bytes: int | None
    why: str = ""


def first_line(model: ModelConfig) -> Iterator[Line]:
    """What a run does first where the model is one file, or is put together from what is not all here.

    Raises ModelError for a file that batchgen cannot use, or could not unpack.
    """
    named = {"model.path": model.path, "model.base": model.base, "model.vae": model.vae}
    if is_plain_hub(model):
        return
    try_unpacking(model)
    for key, text in named.items():
        found = None if text is None else cached(key, text, None)
        if text is not None and found is None:
            yield Line("first", f"{key}={text} is downloaded", {f"{key}_download": text})
        elif found is not None and found.is_file():
            file = checkpoint.look(key, found)
            said = f"{found} ({file.title}) is unpacked into the cache unless it is there: {gib(file.bytes)} of disk"
            yield Line("first", said, {f"{key}_unpacked_bytes": file.bytes, f"{key}_family": file.title})


def to_download(model: ModelConfig) -> Download:
    """What has to be fetched of a hub id that is not in the cache.

    The hub is asked for names and sizes only, and not at all if it is told to be offline. Raises nothing that the hub
    or the model is the cause of: the reason is in what is returned.
    """
    if is_offline():
        return Download(None, "HF_HUB_OFFLINE is set")
    try:
        want = Want("model.path", model.path, revision=model.revision)
        repository = look(want.name, want.revision)
        names = names_of(want, repository, model.variant, model.safety_checker != "off")
        return Download(repository.bytes_to_fetch(names))
    except BatchgenError as error:
        return Download(None, str(error))
