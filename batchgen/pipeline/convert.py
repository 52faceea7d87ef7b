"""The part of unpacking a model that needs torch: weights get the names that diffusers and transformers have for them.

It runs in a process of its own:

    python -m batchgen.pipeline.convert < request.json > answer.json

The names are mapped by the functions with which diffusers 0.42.1 loads single files. No number changes its dtype.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from batchgen.errors import ModelError, in_one_line
from batchgen.files import sha256_file
from batchgen.models.aside import answer
from batchgen.models.parts import Part
from batchgen.pipeline.check import judge

_PIECE_BYTES = 4 << 30  # of a file; no more is held in memory at once
_OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
_SD3_CLIP = "text_encoders.clip_l.transformer."


def convert(file: Path, folder: Path, pieces: dict[str, dict[str, Any]], is_trial: bool = False) -> None:
    """Write the weights of parts of a file into a folder that has their configurations; a trial writes nothing.

    Each of `pieces` states library, kind, prefix and names of a part. Raises ModelError where a part is not complete,
    or its numbers do not have the shapes that its configuration asks for.
    """
    os.environ |= {"DIFFUSERS_DISABLE_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1"}
    from safetensors.torch import load_file

    every = load_file(file)  # mapped: nothing is read before it is used
    for name, piece in pieces.items():
        config = json.loads((folder / name / "config.json").read_bytes())
        state = {key: every[key] for key in piece["names"]}
        try:
            made = converted(piece["kind"], config, piece["prefix"], state)
        except Exception as error:  # for names that it does not expect, a mapping raises anything
            raise ModelError(f"its {name} has other names than batchgen knows: {in_one_line(error)}") from error
        part = Part(name, piece["library"], piece["kind"], {"config.json": folder / name / "config.json"})
        try:
            judge(part, {key: list(one.shape) for key, one in made.items()})
        except ModelError as error:
            told = str(error).removeprefix(f"{folder / name} ").rpartition(": ")[0]
            raise ModelError(f"its {name} {told}: it belongs to another kind of model, or is not whole") from error
        if not is_trial:
            _save(made, folder / name, "diffusion_pytorch_model" if piece["library"] == "diffusers" else "model")


def converted(kind: str, config: dict[str, Any], prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """The weights of a part by the names that its class has for them. Raises anything for names that are unknown."""
    import torch
    from diffusers.loaders import single_file_utils
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    if prefix in _OPEN_CLIP:
        shell = SimpleNamespace(config=SimpleNamespace(**config))
        made = single_file_utils.convert_open_clip_checkpoint(shell, state, prefix)
        return made if kind.endswith("WithProjection") else _without(made, "text_projection.weight")
    state = {name.removeprefix(prefix): one for name, one in state.items()}
    if kind.startswith(("CLIP", "T5")):
        made = _without(state, "position_ids")
        if kind != "CLIPTextModelWithProjection":
            return _without(made, "text_projection.weight")
        if prefix == _SD3_CLIP:  # as diffusers has it, whatever the file says
            made["text_projection.weight"] = torch.eye(config["projection_dim"])
        return made
    expected = _expected(kind, config)
    own = {name: state[name] for name in sorted(expected & state.keys())}
    if len(own) == len(expected):  # diffusers' own names
        return own
    if kind == "UNet2DConditionModel":
        state = {f"{single_file_utils.LDM_UNET_KEY}{name}": one for name, one in state.items()}
    mapping = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
    try:
        made = {name: one for name, one in mapping(checkpoint=dict(state), config=config).items() if one is not None}
    except Exception:
        if 2 * len(own) < len(expected):
            raise
        return own  # its own names, of which some are missing
    return own if len(own) > len(expected & made.keys()) else made


def _without(state: dict[str, Any], ending: str) -> dict[str, Any]:
    return {name: one for name, one in state.items() if not name.endswith(ending)}


def _expected(kind: str, config: dict[str, Any]) -> set[str]:
    import diffusers
    import torch

    with torch.device("meta"):
        return {*getattr(diffusers, kind).from_config(config).state_dict()}


def _save(state: dict[str, Any], folder: Path, stem: str) -> None:
    """Write weights, in one file or in pieces with an index, and flush them."""
    from safetensors.torch import save_file

    groups = list(_pieces(state))
    where: dict[str, str] = {}
    for place, names in enumerate(groups, 1):
        mark = "" if len(groups) == 1 else f"-{place:05d}-of-{len(groups):05d}"
        path = folder / f"{stem}{mark}.safetensors"
        save_file({name: state[name].clone().contiguous() for name in names}, path, {"format": "pt"})
        where |= dict.fromkeys(names, path.name)
        _flush(path)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(one.nbytes for one in state.values())}, "weight_map": where}
        path = folder / f"{stem}.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n")
        _flush(path)


def _pieces(state: dict[str, Any]) -> Iterator[Sequence[str]]:
    names: list[str] = []
    held_bytes = 0
    for name, one in sorted(state.items()):
        if names and held_bytes + one.nbytes > _PIECE_BYTES:
            yield names
            names, held_bytes = [], 0
        names.append(name)
        held_bytes += one.nbytes
    yield names


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def main() -> int:
    """Answer the request on standard input with {"sha256": of the file}, or {"problem": why it cannot be unpacked}.

    The answer to a trial has no sha256.
    """
    return answer(_unpack)


def _unpack(request: dict[str, Any]) -> dict[str, Any]:
    file, is_trial = Path(request["file"]), bool(request["is_trial"])
    convert(file, Path(request["folder"]), request["pieces"], is_trial)
    return {} if is_trial else {"sha256": sha256_file(file)}


if __name__ == "__main__":
    sys.exit(main())
