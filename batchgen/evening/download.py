"""How much of a hub model is still to be downloaded."""

from dataclasses import dataclass

from batchgen.config.schema import ModelConfig
from batchgen.errors import BatchgenError
from batchgen.models.find import wanted
from batchgen.models.hub import is_offline, look


@dataclass(frozen=True, slots=True)
class Download:
    """`bytes` to fetch; None if that is not known, with the reason in `why`."""

    bytes: int | None
    why: str = ""


def to_download(model: ModelConfig) -> Download:
    """What has to be fetched of a hub id that is not in the cache.

    The hub is asked for names and sizes only, and not at all if it is told to be offline. Raises nothing that the hub
    or the model is the cause of: the reason is in what is returned.
    """
    if is_offline():
        return Download(None, "HF_HUB_OFFLINE is set")
    try:
        repository = look(model.path, model.revision)
        return Download(repository.bytes_to_fetch(wanted(repository, model)))
    except BatchgenError as error:
        return Download(None, str(error))
