"""LoRA files: where they are, whether they are any, and their digests. No torch here.

pipeline/lora.py merges them; batchgen.pipeline.check finds out before that whether one fits a model.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.config.loras import parse_loras
from batchgen.errors import ModelError
from batchgen.files import sha256_bytes, sha256_unless_known
from batchgen.models.beside import kind_of_file
from batchgen.models.parts import tensors
from batchgen.models.sources import cached, fetched
from batchgen.plan.records import LoraFile
from batchgen.types import Lora

_SUFFIX = ".safetensors"
_ON_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/([\w./ -]+\.safetensors)")
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
# Words in the names of tensors that tell of changes which are no plain product of two matrices.
_OTHERS = (
    ("hada_w", "LoHa"), ("lokr_w", "LoKr"), ("dora_scale", "DoRA"), ("lora_magnitude_vector", "DoRA"),
    ("lora_mid", "a Tucker decomposition"), ("oft_", "OFT"),
)  # fmt: skip


class Loras:
    """Finds the LoRA files that a job and its rows name. Call it with what a row says, or None for the job's own.

    Each text is looked up once, and so is the digest of each file. Raises ModelError, in one line.
    """

    def __init__(self, job: Any) -> None:
        """`job`: model.lora of the configuration."""
        self._job = job
        self._known: dict[str | None, tuple[Lora, ...]] = {}

    def __call__(self, said: str | None = None) -> tuple[Lora, ...]:
        """The files, each with its weight and digest."""
        if said not in self._known:
            parsed = parse_loras(self._job if said is None else said)
            self._known[said] = tuple(_settled(path, weight) for path, weight in parsed)
        return self._known[said]

    @property
    def texts(self) -> list[str] | None:
        """The job's own as workers find them from any directory, in the form of model.lora."""
        return [f"{one.path}:{one.weight!r}" for one in self()] or None

    def beside(self, planned: Iterable[LoraFile]) -> Callable[[str | None], tuple[Lora, ...]]:
        """The same for rows that are added to a plan: under a path that the plan has there must be the planned file.

        Otherwise a path would be two files in one run, of which a worker finds only one.
        """
        known = {one.path: one.sha256 for one in planned}

        def find(said: str | None = None) -> tuple[Lora, ...]:
            found = self(said)
            for one in found:
                if known.get(one.path, one.sha256) != one.sha256:
                    raise ModelError(_not_planned(f"{one.path} is not the file"))
            return found

        return find


def _settled(text: str, weight: float) -> Lora:
    path = lora_file(text)
    refuse_others(path)
    return Lora(str(path), weight, digest(path))


def lora_file(text: str) -> Path:
    """The full path of a .safetensors file: a local one, or ORG/NAME/FILE.safetensors of the hub.

    The hub's file is fetched unless it is in the cache. Raises ModelError where there is no such file, or another kind.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() in _PICKLED:
        raise ModelError(
            f"LoRA {text} is pickled, and batchgen loads safetensors alone: get or convert it to {_SUFFIX}"
        )
    if path.is_file():
        if path.suffix != _SUFFIX:
            raise ModelError(f"LoRA {text} is no {_SUFFIX} file: name one")
        return path.absolute()
    if _ON_HUB.fullmatch(text) and not path.parent.is_dir():
        return _from_hub(text)
    folder = path if path.is_dir() else path.parent
    there = sorted(one.name for one in folder.iterdir() if one.suffix == _SUFFIX) if folder.is_dir() else []
    if path.is_dir():
        raise ModelError(f"LoRA {text} is a folder: name the file in it{did_you_mean('', there) if there else ''}")
    helps = did_you_mean(path.name, there) if there else "; name a file, or ORG/NAME/FILE.safetensors of the hub"
    raise ModelError(f"LoRA {text}: no such file{helps}")


def _from_hub(text: str) -> Path:
    # Without a look whether there is a newer one: what was fetched counts.
    return cached("model.lora", text, None) or fetched("model.lora", text, None, None, safety_checker=False)


def refuse_others(path: Path) -> None:
    """Raise ModelError where the file's header says that it is no LoRA, or one of another kind than up times down."""
    names = tensors(path)
    for word, kind in _OTHERS:
        if any(word in name for name in names):
            raise ModelError(f"LoRA {path} holds {kind}, which batchgen does not merge: use a plain LoRA")
    if not any("lora" in name for name in names):
        other = kind_of_file(path)
        raise ModelError(f"LoRA {path} holds no LoRA{f', but {other}' if other else ''}: name another file")


def peft_settings(path: Path) -> Path | None:
    """The file of settings that PEFT writes beside a file; None where it wrote none. Its alpha changes images."""
    settings = path.with_name("adapter_config.json")
    return settings if path.name == "adapter_model.safetensors" and settings.is_file() else None


def digest(path: Path) -> str:
    """The SHA-256 of the file, or of those of the file and PEFT's settings beside it. Raises OSError.

    It is computed again only where a file's size or time has changed.
    """
    settings = peft_settings(path)
    every = [sha256_unless_known(one) for one in (path, settings) if one is not None]
    return every[0] if settings is None else sha256_bytes(" ".join(every).encode())


def find_planned(planned: Iterable[LoraFile], job: Any) -> Mapping[str, Path]:
    """The files that a plan's rows were planned with, by digest: where they were, or where model.lora has them now.

    Raises ModelError for one that is gone, or is not the same any more.
    """
    moved = [Path(path) for path, _ in parse_loras(job)]
    return {one.sha256: _same([Path(one.path), *moved], one.sha256) for one in planned}


def _same(places: list[Path], sha256: str) -> Path:
    there = [place for place in places if place.is_file()]
    for place in there:
        if digest(place) == sha256:
            return place
    was = places[0]
    what = f"{was} is not the file" if was in there else f"{was} is gone, a file"
    raise ModelError(_not_planned(what))


def _not_planned(what: str) -> str:
    return f"LoRA {what} that this run was planned with: put the original back, or start a new run"
