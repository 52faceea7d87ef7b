"""The parts of a model in the diffusers layout, and the very files that each is loaded from. No torch here.

The loader, the check, the memory figures and the fingerprint read these files and no others.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import ModelError, in_one_line

INDEX_FILE = "model_index.json"
# What a part may have beside its weights, by the names that diffusers 0.42.1 and transformers 5.23 look for.
_SETTINGS = (
    "config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json",
    "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model", "tokenizer.model",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_COMMON_VARIANTS = ("fp16", "bf16", "fp32")
# Files each of which holds all words of a tokenizer.
WORDS = ("tokenizer.json", "spiece.model", "tokenizer.model")
_WEIGHTLESS = ("scheduler", "tokenizer", "feature_extractor")  # what the names of such parts begin with
# What safetensors 0.8 reads.
_DTYPES = {
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
    "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
}  # fmt: skip
_UNUSED = ("image_encoder",)
_CHECKER = ("safety_checker", "feature_extractor")
# diffusers and transformers name weights differently; of one file and a set in pieces the first takes the pieces.
_STEM = "diffusion_pytorch_model"
_OF_TRANSFORMERS, _STEM_THERE = ("text_encoder", "safety_checker", "image_encoder"), "model"
_MARK = re.compile(r"(?:diffusion_pytorch_model|model)(?:-\d{5}-of-\d{5})?\.([\w-]+?)(?:-\d{5}-of-\d{5})?\.safetensors")


@dataclass(frozen=True, slots=True)
class Part:
    """One component of a model. `kind` is its class in `library`; `files` by the names that its loader looks for."""

    name: str
    library: str
    kind: str
    files: dict[str, Path]

    @property
    def weights(self) -> list[Path]:
        """Its weight files; none of a tokenizer or a scheduler."""
        return [path for name, path in self.files.items() if name.endswith(".safetensors")]


def read_index(folder: Path) -> tuple[str, dict[str, tuple[str, str]]]:
    """The model's family, and the (library, class) of each part that it has. Raises ModelError."""
    try:
        index = json.loads((folder / INDEX_FILE).read_bytes())
        family = index["_class_name"]
        named = {name: kind for name, kind in index.items() if isinstance(kind, list) and not name.startswith("_")}
        parts = {name: (str(library), str(kind)) for name, (library, kind) in named.items() if kind}
        parts["scheduler"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        is_gone = isinstance(error, FileNotFoundError)
        why = f"it has no {INDEX_FILE}" if is_gone else f"{INDEX_FILE} cannot be used: {reason_of(error)}"
        raise ModelError(f"{folder} is not a model in the diffusers layout: {why}; copy the whole model") from error
    return str(family), parts


def parts_of(folder: Path, variant: str | None, safety_checker: bool) -> list[Part]:
    """The parts that a run loads, by name. Raises ModelError where one is not there."""
    _, kinds = read_index(folder)
    unused = _UNUSED + (() if safety_checker else _CHECKER)
    names = sorted(name for name in kinds if name not in unused)
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}: copy the whole model")
    return [part_in(folder, name, *kinds[name], variant) for name in names]


def part_in(folder: Path, name: str, library: str, kind: str, variant: str | None) -> Part:
    """A part in a model's folder, with the files that it is loaded from. Raises ModelError where they are not there."""
    return Part(name, library, kind, _files(folder, name, variant))


def refuse_misspelt(folder: Path, variant: str | None) -> None:
    """Raise ModelError for a variant that the model does not have, unless its name is a common one.

    A folder with one set of weights, without a mark, serves for every variant of a common name: `model=sdxl` asks for
    fp16 wherever its path leads.
    """
    parts = [folder / name for name in read_index(folder)[1] if (folder / name).is_dir()]
    marks = sorted({mark for part in parts for mark in _marks(part)})
    if not variant or variant in marks:
        return
    near = difflib.get_close_matches(variant, marks)
    if near or variant not in _COMMON_VARIANTS:
        there = f"did you mean {near[0]}?" if near else f"it has {', '.join(marks) or 'no variants'}"
        raise ModelError(f"model.variant={variant}: {folder} has no such weights; {there}")


def weight_files(folder: Path, name: str, variant: str | None) -> dict[str, Path]:
    """The files that hold a component's weights, by the names without a variant's mark under which a loader finds them.

    Those of the variant where the component has them, else those without a mark; in one file, or in pieces with their
    index under the names of today's or of older versions of diffusers. Empty where there are none. Raises ModelError
    for pieces that are not all there.
    """
    folder, stem = folder / name, _STEM_THERE if name.startswith(_OF_TRANSFORMERS) else _STEM
    for mark in (variant, None) if variant else (None,):
        dot = f".{mark}" if mark else ""
        one = folder / f"{stem}{dot}.safetensors"
        indexes = [f"{stem}.safetensors.index{dot}.json", f"{stem}.safetensors{dot}.index.json"]
        index = next((folder / file for file in indexes if (folder / file).is_file()), None)
        if index is not None and not (one.is_file() and stem == _STEM_THERE):
            pieces = {piece: folder / piece for piece in _pieces(index)}
            return {f"{stem}.safetensors.index.json": index} | pieces
        if one.is_file():
            return {f"{stem}.safetensors": one}
    return {}


class Tensor(NamedTuple):
    """An entry in the header of a safetensors file; the numbers are at `start` to `end`, in bytes of the file."""

    dtype: str
    shape: list[int]
    start: int
    end: int


def tensors(path: Path) -> dict[str, list[int]]:
    """{name: shape} of the tensors in a safetensors file, from its header. Raises ModelError for a broken file."""
    return {name: one.shape for name, one in header(path).items()}


def header(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name. Raises ModelError for a broken file."""
    size_bytes = path.stat().st_size
    advice = "download or copy it again"
    if size_bytes == 0:
        raise ModelError(f"{path} is empty: {advice}")
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":  # https://git-lfs.github.com/spec/v1
            raise ModelError(f"{path} is only a pointer of Git LFS, not the weights: run git lfs pull in the model")
        begin = 8 + int.from_bytes(start, "little")
        if len(start) < 8 or begin > size_bytes:
            raise ModelError(f"{path} is cut off or no safetensors file: {advice}")
        try:
            entries = {name: one for name, one in json.loads(file.read(begin - 8)).items() if name != "__metadata__"}
            end = begin + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            found = {name: _tensor(entry, begin) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ModelError(f"{path} is damaged, its header cannot be read: {advice}") from error
    if size_bytes != end:
        state = "cut off" if size_bytes < end else "damaged"
        raise ModelError(f"{path} is {state}: it has {size_bytes} bytes, not {end}; {advice}")
    if strange := next((one.dtype for one in found.values() if one.dtype not in _DTYPES), None):
        raise ModelError(f"{path} has numbers of a kind that is not known ({strange[:20]}): {advice}")
    return found


def _tensor(entry: dict[str, Any], begin: int) -> Tensor:
    first, last = (begin + int(place) for place in entry["data_offsets"])
    return Tensor(str(entry["dtype"]), [int(edge) for edge in entry["shape"]], first, last)


def _pieces(index: Path) -> list[str]:
    try:
        pieces = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {reason_of(error)}; download or copy it again") from error
    if foreign := [piece for piece in pieces if not isinstance(piece, str) or Path(piece).name != piece]:
        raise ModelError(f"{index} names {foreign[0]}, which is not a file beside it")
    if missing := [piece for piece in pieces if not (index.parent / piece).is_file()]:
        count = f"{len(missing)} of the {len(pieces)} files"
        raise ModelError(f"{index.parent} lacks {count} that its weights are in: copy {missing[0]} too")
    return pieces


def _files(folder: Path, name: str, variant: str | None) -> dict[str, Path]:
    part = folder / name
    settings = {file: part / file for file in _SETTINGS if (part / file).is_file()}
    weights = weight_files(folder, name, variant)
    if not name.startswith(_WEIGHTLESS) and not weights:
        raise ModelError(_no_weights(part))
    return settings | weights


def _no_weights(part: Path) -> str:
    if marks := sorted(set(_marks(part))):
        told = f"its weights belong to the variant {' or '.join(marks)}"
        return f"{part} has no weights without a variant's mark, {told}: set model.variant={marks[0]}"
    if any(path.suffix == ".bin" for path in part.iterdir()):
        return f"{part} has pickled weights only; batchgen loads safetensors alone"
    if any("-of-" in path.name for path in part.glob("*.safetensors")):
        return f"{part} has weights in pieces without their index (*.safetensors.index.json): copy that too"
    return f"{part} has no weights (*.safetensors): copy the whole model"


def _marks(part: Path) -> Iterator[str]:
    # The variants that the names of its weight files tell
    matches = (_MARK.fullmatch(path.name) for path in part.iterdir())
    yield from (match[1] for match in matches if match)


def settings(part: Part, file: str = "config.json") -> dict[str, Any]:
    """A part's configuration. Raises ModelError where it cannot be read."""
    try:
        if file not in part.files:
            raise ValueError("it is missing")
        values = json.loads(part.files[file].read_text("utf-8"))  # the loaders take no byte order mark
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        beside = next(iter(part.files.values()), None)
        path = file if beside is None else beside.parent / file
        raise ModelError(
            f"{file} of the model's {part.name} cannot be read: {reason_of(error)}; download or copy {path} again"
        ) from error
    return values


def reason_of(error: Exception) -> str:
    """What an error says in one line; one of the operating system without its number and path."""
    return (isinstance(error, OSError) and error.strerror) or in_one_line(error)
