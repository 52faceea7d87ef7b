"""LoRA files: what they change in a model, read by diffusers' own conversions.

So what its loaders load, loads here: its own form, kohya's and PEFT's. The names of layers and what up times down is
multiplied by are found as in diffusers 0.42.1 (loaders/lora_pipeline.py, loaders/peft.py) and PEFT 0.21.
"""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from batchgen.errors import ModelError, in_one_line
from batchgen.models.families.base import Family
from batchgen.models.lora import peft_settings, refuse_others

Place = tuple[str, str]
"""A tensor of a model: its part, and its name in the part."""
_METADATA = "lora_adapter_metadata"  # where diffusers keeps the settings of PEFT in the header of a file
_OF_PEFT, _OF_TEXT = "base_model.model.", "text_model."
_PEFT_NAME = re.compile(r"\.(lora_[AB])\.default\.")
_LAYER = re.compile(r"(.+)\.(lora_[AB]\.weight|lora_B\.bias)")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """What the LoRA of a family of models may change, and how its files are read. `pipeline`: diffusers' class."""

    pipeline: Any
    family: Family

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(self.pipeline._lora_loadable_modules)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one tensor: scale * up @ down, flat but for its rows. Without `down`, `up` is the change itself."""

    up: Tensor
    down: Tensor | None
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Its shape."""
        return len(self.up), self.up.shape[1] if self.down is None else self.down.shape[1]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a LoRA file changes, at weight 1. `told`: remarks for the user."""

    changes: dict[Place, Change]
    told: list[str]


def lora_kind(family: Family) -> Kind:
    """How LoRA files for a family are read."""
    import diffusers

    return Kind(getattr(diffusers, family.pipeline), family)


def read_lora(kind: Kind, path: Path, parts: Mapping[str, nn.Module]) -> Changes:
    """What the file changes in the parts, of which names and shapes are read (so they may be on the meta device).

    Raises ModelError, in one line, for a file that does not fit the model.
    """
    refuse_others(path)
    try:
        layers, strange = _layers(kind, path, parts)
        every = {
            (part, f"{module}.{name}"): change for (part, module), layer in layers.items() for name, change in layer
        }
    except Exception as error:  # the conversions raise anything for keys that they do not expect
        fits = "it may belong to another model, or be of another kind"
        raise ModelError(f"LoRA {path} cannot be read for this model: {in_one_line(error)}; {fits}") from error
    tensors = {(name, key): one for name, part in parts.items() for key, one in part.named_parameters()}
    changes = {place: change for place, change in every.items() if place in tensors}
    strange += [".".join(place) for place in every.keys() - changes.keys()]
    for place, change in changes.items():
        if change.shape != _flat(tensors[place]):
            raise ModelError(f"LoRA {path} does not fit this model: {'.'.join(place)} has another shape there")
    if not changes:
        raise ModelError(f"LoRA {path} does not fit this model: it has none of the layers that the file changes")
    return Changes(changes, [_unused(sorted(strange), len(changes))] if strange else [])


def refuse_infinite(path: Path, changes: Changes) -> None:
    """Raise ModelError where a change has values that are infinite or not a number: it would spoil every image.

    Values that are too large for a dtype alone are left to it.
    """
    for place, change in changes.changes.items():
        numbers = [one for one in (change.up, change.down) if one is not None]
        if not (math.isfinite(change.scale) and all(bool(one.isfinite().all()) for one in numbers)):
            raise ModelError(
                f"LoRA {path} has values that are infinite or not a number, in {'.'.join(place)}: get or train it again"
            )


def _unused(strange: list[str], used: int) -> str:
    more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
    count = f"{len(strange)} of its {len(strange) + used} tensors"
    return f"{count} are not for parts of this model and change nothing: {', '.join(strange[:_SHOWN])}{more}"


def _flat(tensor: Tensor) -> tuple[int, int]:
    return len(tensor), math.prod(tensor.shape[1:])


class _Layer:
    """The tensors of one layer in a file, by their names in PEFT, and what up times down is multiplied by."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.scale: Callable[[int], float] = lambda rank: 1.0

    def __iter__(self) -> Iterator[tuple[str, Change]]:
        """(name of the layer's tensor, change). Raises ValueError where up or down is missing."""
        if not {"lora_A.weight", "lora_B.weight"} <= self.tensors.keys():
            raise ValueError(f"a layer has {' and '.join(self.tensors)} alone")
        down, up = (self.tensors[name].flatten(1) for name in ("lora_A.weight", "lora_B.weight"))
        if up.shape[1] != len(down):
            raise ValueError(f"up and down of a layer have different ranks, {up.shape[1]} and {len(down)}")
        yield "weight", Change(up, down, self.scale(len(down)))
        if "lora_B.bias" in self.tensors:
            yield "bias", Change(self.tensors["lora_B.bias"][:, None], None, self.scale(len(down)))


def _layers(kind: Kind, path: Path, parts: Mapping[str, nn.Module]) -> tuple[dict[tuple[str, str], _Layer], list[str]]:
    """{(part, module): layer}, and the names of tensors that belong to no part."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        state = {_PEFT_NAME.sub(r".\1.", name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = json.loads(header.get(_METADATA, "{}"))
    if (bare := _bare(state, parts)) is not None:
        state = {f"{bare}.{name.removeprefix(_OF_PEFT)}": one for name, one in state.items()}
        if (config := peft_settings(path)) is not None:
            settings = {f"{bare}.{name}": value for name, value in json.loads(config.read_bytes()).items()}
    state, alphas = _of_diffusers(kind, state, parts)
    layers: dict[tuple[str, str], _Layer] = {}
    for part in parts:
        own, its_alphas, its_settings = (_under(part, one) for one in (state, alphas, settings))
        names = _peft_names(list(own), parts[part], part == kind.family.denoiser)
        for name, tensor in own.items():
            found = _LAYER.fullmatch(names[name])
            if found is None:
                raise ValueError(f"{part}.{name} is no part of a plain LoRA")
            layers.setdefault((part, found[1]), _Layer()).tensors[found[2]] = tensor
        modules = {
            stem: names[name].partition(".lora_")[0] for name in own for stem in (name, name.partition(".lora")[0])
        }
        for name, alpha in its_alphas.items():
            layers[part, modules[name.removesuffix(".alpha")]].scale = _over_rank(float(alpha))
        if its_settings:
            for (owner, module), layer in layers.items():
                if owner == part:
                    layer.scale = _scale(its_settings, module)
    of_parts = tuple(f"{part}." for part in parts)
    return layers, [name for name in state if not name.startswith(of_parts)]


def _over_rank(alpha: float) -> Callable[[int], float]:
    return lambda rank: alpha / rank


def _bare(state: Mapping[str, Tensor], parts: Mapping[str, nn.Module]) -> str | None:
    """The part of which the file has the layers by the names that they have there, as PEFT writes them; else None."""
    modules = {name.removeprefix(_OF_PEFT).partition(".lora_")[0] for name in state if ".lora_A." in name}
    for part, module in parts.items():
        known = {name for name, _ in module.named_modules()}
        if any(one in known or one.removeprefix(_OF_TEXT) in known for one in modules):
            return part
    return None


def _of_diffusers(
    kind: Kind, state: dict[str, Tensor], parts: Mapping[str, nn.Module]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by the names of diffusers, each under its part's, and the alphas that are not in them yet."""
    read = kind.pipeline.lora_state_dict
    options: dict[str, Any] = {"return_alphas": True} if "return_alphas" in inspect.signature(read).parameters else {}
    if kind.family.convolutional and "text_encoder_2" in parts:  # as the pipeline of SDXL gives it
        options["unet_config"] = parts[kind.family.denoiser].config
    made = read(state, **options)
    state, alphas = made if isinstance(made, tuple) else (made, None)
    alphas = dict(alphas or {}) | {name: one for name, one in state.items() if name.endswith(".alpha")}
    return {name: one for name, one in state.items() if name not in alphas}, alphas


def _peft_names(names: list[str], part: nn.Module, is_denoiser: bool) -> dict[str, str]:
    """What PEFT calls the tensors of a part, as diffusers' loaders find out."""
    from diffusers.utils import state_dict_utils as utils

    known: dict[str, str] = {name: name for name in names}
    if not names:
        return known
    if is_denoiser:
        if "lora_A" not in names[0]:
            known = utils.convert_unet_state_dict_to_peft(known)
    else:
        known = utils.convert_state_dict_to_peft(utils.convert_state_dict_to_diffusers(known))
        if not hasattr(part, "text_model"):  # transformers 5 has no such level in some encoders
            known = {name.removeprefix(_OF_TEXT): was for name, was in known.items()}
    return {was: name for name, was in known.items()}


def _under(part: str, named: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{part}."): one for name, one in named.items() if name.startswith(f"{part}.")}


def _scale(settings: Mapping[str, Any], module: str) -> Callable[[int], float]:
    """What PEFT 0.21 multiplies up times down by, from the settings of a part."""

    def value(name: str, patterns: str) -> float:
        own = settings.get(patterns) or {}
        found = (pattern for pattern in own if re.fullmatch(rf"(.*\.)?({pattern})", module))
        return float(own.get(next(found, ""), settings[name]))

    alpha, rank = value("lora_alpha", "alpha_pattern"), value("r", "rank_pattern")
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return lambda _: scale
