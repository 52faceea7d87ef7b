"""Finds a model and checks it before anything is loaded. Dry runs use it, so it does not import torch."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.config.schema import Config, ModelConfig
from batchgen.errors import ModelError, in_one_line
from batchgen.models.families import FAMILIES
from batchgen.models.families.base import NEVER, Family
from batchgen.models.families.texts import TextOptions
from batchgen.models.parts import INDEX_FILE, WORDS, Part, parts_of, read_index, settings, tensors
from batchgen.places import models_dir

# They draw their own noise (a Brownian tree) and ignore per-image generators, so that an image would depend on its
# neighbours (diffusers 0.42.1, schedulers/scheduling_{dpmsolver_sde,cosine_dpmsolver_multistep}.py).
REFUSED_SCHEDULERS = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")
# The bundled models that were trained again, each with its earlier editions: runs that were begun with one keep it.
EARLIER_EDITIONS = {"tiny_2": ("tiny",)}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model in the diffusers layout: its folder, and which of the files in it a run loads.

    `variant`: the set of weight files, where a part has more than one. `safety_checker`: whether that part is loaded.
    `texts`: how the model's family encodes texts, and what it is told of sizes.
    """

    folder: Path
    variant: str | None = None
    safety_checker: bool = False
    texts: TextOptions = TextOptions()

    def parts(self) -> list[Part]:
        """The parts that a run loads, by name. Raises ModelError where a part is missing."""
        return parts_of(self.folder, self.variant, self.safety_checker)

    @property
    def family(self) -> Family:
        """What differs between this model and those of other families. Raises ModelError where it is of none."""
        return family_in(self.folder).using(self.texts)


def family_in(folder: Path) -> Family:
    """The family of the model in a folder. Raises ModelError where it is of none, or is no model."""
    name = read_index(folder)[0]
    if name not in FAMILIES:  # a model that brings its own code has a list here
        known = ", ".join(f"{one.title} ({pipeline})" for pipeline, one in FAMILIES.items())
        raise ModelError(f"{folder} is a {name}, which batchgen does not run; it runs {known}")
    return FAMILIES[name]


def find_model(model: ModelConfig) -> ModelFiles | None:
    """The model's files, or None for a hub id (`download` fetches it). Raises ModelError if it is neither."""
    folder = Path(model.path).expanduser()
    bundled = models_dir() / model.path
    if folder.name == model.path and bundled.is_dir():
        return files_in(bundled, model)
    if folder.is_dir():
        return files_in(folder, model)
    if folder.exists():
        raise ModelError(f"model.path={model.path} is a file; name a folder in the diffusers layout, or a hub id")
    if _HUB_ID.fullmatch(model.path) and not folder.parent.is_dir():
        return None
    said = f"model.path={model.path}: no such folder, and not a hub id such as org/name"
    raise ModelError(said + _what_is_there(models_dir() if folder.name == model.path else folder.parent, folder))


def _what_is_there(beside: Path, folder: Path) -> str:
    """What to append for a folder that is not in `beside`: the model, or the folder, that may be meant."""
    if not beside.is_dir():
        return f"; there is no folder {beside} either"
    try:
        folders = sorted(path.name for path in beside.iterdir() if path.is_dir() and path.name[0] not in "._")
    except OSError:
        return ""
    found = [name for name in folders if (beside / name / "model_index.json").is_file()]
    of_models, of_all = did_you_mean(folder.name, found), did_you_mean(folder.name, folders)
    if of_all.startswith("; did you mean") and not of_models.startswith("; did you mean"):
        return of_all
    return of_models if found else ""


def files_in(folder: Path, model: ModelConfig) -> ModelFiles:
    """The files of the model in a folder, as the configuration wants them."""
    return ModelFiles(folder, model.variant, model.safety_checker != "off", TextOptions.of(model))


def locate(model: ModelConfig) -> ModelFiles:
    """The model's files; a hub model is fetched if it is not in the cache. Raises ModelError."""
    return find_model(model) or download(model)


def download(model: ModelConfig) -> ModelFiles:
    """The files of a hub model, fetched unless they are in the cache. Only safetensors and plain files are taken.

    Raises ModelError, in one line, where the model cannot be downloaded.
    """
    # The libraries stay silent: the ModelError below says in one line what went wrong.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    from diffusers import DiffusionPipeline

    try:
        folder = DiffusionPipeline.download(
            model.path, revision=model.revision, variant=model.variant, use_safetensors=True
        )
    except Exception as error:  # the hub's client raises many kinds, each with a long text
        raise ModelError(
            f"model {model.path} cannot be downloaded: {in_one_line(error)}. Check the id, the network and HF_TOKEN, "
            "or set model.path to a local folder"
        ) from error
    return files_in(Path(folder), model)


def check_model(model: ModelFiles, scheduler: str) -> list[Part]:
    """The parts of the model that a run loads. Looks at names, settings and headers only.

    Raises ModelError, in one line, for a model that could not run.
    """
    folder = model.folder
    family, kinds = family_in(folder), read_index(folder)[1]
    if missing := [name for name in family.needed if name not in kinds]:
        raise ModelError(f"{folder} lacks {', '.join(missing)}: copy the whole model")
    own_scheduler = kinds["scheduler"][1]
    if scheduler == "model" and own_scheduler in REFUSED_SCHEDULERS:
        raise ModelError(
            f"the model's own scheduler {own_scheduler} ignores per-image seeds: set job.scheduler=dpm++ or another"
        )
    if model.safety_checker and not {"safety_checker", "feature_extractor"} <= kinds.keys():
        raise ModelError(f"{folder} has no safety checker: set model.safety_checker=off")
    parts, denoiser = model.parts(), family.denoiser
    for part in parts:
        for path in part.weights:
            tensors(path)
        if part.name == denoiser and settings(part).get("time_cond_proj_dim"):
            raise ModelError(f"{folder} embeds its guidance (time_cond_proj_dim), which batchgen does not run yet")
        if part.name in (denoiser, "vae") and settings(part).get("quantization_config"):
            raise ModelError(
                f"the {part.name} in {folder} is quantized, which batchgen does not run: use plain weights"
            )
        if part.name.startswith("tokenizer") and not _has_words(part):
            raise ModelError(
                f"{folder / part.name} has no words (tokenizer.json, or vocab.json and merges.txt): copy all of it"
            )
    return parts


def _has_words(tokenizer: Part) -> bool:
    # Without them CLIP's tokenizer loads all the same, and takes every word for the same unknown one.
    there = tokenizer.files.keys()
    return not there.isdisjoint(WORDS) or {"vocab.json", "merges.txt"} <= there


def place_px(vae_config: Mapping[str, Any]) -> int:
    """The edge in pixels of one place of the latents of a VAE with this configuration."""
    for key, halvings in (("encoder_block_out_channels", -1), ("block_out_channels", -1), ("temperal_downsample", 0)):
        if key in vae_config:
            return int(2 ** (len(vae_config[key]) + halvings))
    return 1


def half_of(model: ModelFiles | None) -> str:
    """The dtype of 16 bits that suits the model; fp16 where its files are not here. Raises ModelError."""
    return "fp16" if model is None else model.family.half


def settled(config: Config, model: ModelFiles) -> Config:
    """The configuration with what the model's family decides, as far as the user does not: where guidance begins.

    Where the two passes of guidance follow each other anyway, they count as divided. Raises ModelError.
    """
    family, above, policy = model.family, config.model.guided_above, config.memory.policy
    if above is None:
        above = family.guidance_starts(json.loads((model.folder / INDEX_FILE).read_bytes()))
    if not family.doubled and above < NEVER and policy.guidance_split is None:
        policy = replace(policy, guidance_split=True)
    return replace(
        config, model=replace(config.model, guided_above=above), memory=replace(config.memory, policy=policy)
    )


def vae_wants_fp32(family: Family, vae_config: Mapping[str, Any]) -> bool:
    """Whether the VAE of a model of this family, otherwise in fp16, decodes in fp32."""
    return family.upcasts_vae and bool(vae_config.get("force_upcast", False))


def hub_revision(folder: Path) -> str | None:
    """The commit of a hub model, from its place in the cache (.../snapshots/<commit>); None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None
