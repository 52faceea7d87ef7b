"""Finds a model and checks it before anything is loaded. Dry runs use it, so it does not import torch."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.config.schema import Config, ModelConfig
from batchgen.console import say
from batchgen.errors import DownloadError, ModelError
from batchgen.models.families import FAMILIES
from batchgen.models.families.base import NEVER, Family
from batchgen.models.hub import Repository, is_commit, is_offline, look, outline
from batchgen.models.parts import INDEX_FILE, WORDS, Part, parts_of, read_index, refuse_misspelt, settings, tensors
from batchgen.models.transfer import fetch
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
    """

    folder: Path
    variant: str | None = None
    safety_checker: bool = False

    def parts(self) -> list[Part]:
        """The parts that a run loads, by name. Raises ModelError where a part is missing."""
        return parts_of(self.folder, self.variant, self.safety_checker)

    @property
    def family(self) -> Family:
        """What differs between this model and those of other families. Raises ModelError where it is of none."""
        return family_in(self.folder)


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
        return _files_in(bundled, model)
    if folder.is_dir():
        return _files_in(folder, model)
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


def _files_in(folder: Path, model: ModelConfig) -> ModelFiles:
    return ModelFiles(folder, model.variant, model.safety_checker != "off")


def locate(model: ModelConfig) -> ModelFiles:
    """The model's files; a hub model is fetched if it is not in the cache. Raises ModelError."""
    return find_model(model) or download(model)


def in_cache(model: ModelConfig) -> ModelFiles | None:
    """The files of a hub model that is in the cache with all its parts; None otherwise. Asks no network."""
    try:
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(model.path, INDEX_FILE, revision=model.revision)
        files = _files_in(Path(str(index)).parent, model)
        return files if isinstance(index, str) and files.parts() else None
    except (ModelError, OSError, ValueError):  # a part is missing; the hub refuses a name that cannot be an id
        return None


def download(model: ModelConfig) -> ModelFiles:
    """The files of a hub model, fetched unless they are in the cache. Only those are taken that a run loads.

    The network is not asked for a commit that is in the cache; where the hub does not answer, what is in the cache
    counts. Raises ModelError and DownloadError, in one line, where the model cannot be downloaded, and OSError.
    """
    cached = in_cache(model)
    if cached is not None and is_commit(model.revision):
        return cached
    try:
        repository = look(model.path, model.revision)
    except (ModelError, DownloadError) as error:
        if cached is None:
            raise
        if not is_offline():
            say(f"{error}; what is in the cache counts, {hub_revision(cached.folder)}")
        return cached
    fetch(repository, wanted(repository, model))
    return _files_in(repository.folder, model)


def wanted(repository: Repository, model: ModelConfig) -> list[str]:
    """Which files of a repository a run with this model loads. Raises ModelError where it could not run."""
    with outline(repository) as folder:
        family_in(folder)
        refuse_misspelt(folder, model.variant)
        loaded = [path for part in _files_in(folder, model).parts() for path in part.files.values()]
        return [INDEX_FILE, *(path.relative_to(folder).as_posix() for path in loaded)]


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
