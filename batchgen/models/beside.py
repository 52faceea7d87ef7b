"""What lies in a model's folder beside its parts and is not used: a LoRA, a ControlNet, a checkpoint in one file."""

from pathlib import Path

from batchgen.errors import ModelError
from batchgen.models.checkpoint import kind_of
from batchgen.models.find import ModelFiles
from batchgen.models.parts import read_index, tensors

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# Names that weights of a part have, also those in another format or of another variant.
_OWN = (
    "diffusion_pytorch_model",
    "diffusion_flax_model",
    "model",
    "pytorch_model",
    "flax_model",
    "tf_model",
    "openvino",
)
_SHOWN = 3


def unused_line(model: ModelFiles) -> str | None:
    """One line about weight files in the model's folder that no part is loaded from; None where there are none.

    Other formats and variants of the parts' own weights do not count. Raises ModelError and OSError.
    """
    found = [_named(path, model.folder) for path in _unused(model)]
    if not found:
        return None
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    listed = ", ".join(found[:_SHOWN]) + more
    return f"not used, because batchgen runs a model's own parts only: {listed} in {model.folder}"


def _unused(model: ModelFiles) -> list[Path]:
    parts = read_index(model.folder)[1]
    every = sorted(path for path in model.folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    visible = [path for path in every if not any(name.startswith(".") for name in path.relative_to(model.folder).parts)]
    return [path for path in visible if not (_place(path, model.folder) in parts and _is_own(path.name))]


def _place(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parent.as_posix()


def _is_own(name: str) -> bool:
    return any(name.startswith((f"{stem}.", f"{stem}-")) for stem in _OWN)


def _named(path: Path, folder: Path) -> str:
    kind = kind_of_file(path)
    return f"{path.relative_to(folder)}" + (f" ({kind})" if kind else "")


def kind_of_file(path: Path) -> str | None:
    """What a file of weights is, as far as its tensors or its name tell: "a LoRA", say; otherwise None."""
    if path.suffix == ".safetensors":
        try:
            return kind_of(tensors(path))
        except (ModelError, OSError):
            return None
    return next(
        (kind for word, kind in (("lora", "a LoRA"), ("controlnet", "a ControlNet")) if word in path.name.lower()), None
    )
