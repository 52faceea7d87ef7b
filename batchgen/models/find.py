"""Finds a model and checks it before anything is loaded. Dry runs use it, so it does not import torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.config.schema import Config, ModelConfig
from batchgen.errors import ModelError
from batchgen.models.assembled import Get, assemble
from batchgen.models.embeddings import Embeddings, check_embeddings, named
from batchgen.models.families import family_in
from batchgen.models.families.base import NEVER, Family
from batchgen.models.families.texts import TextOptions
from batchgen.models.parts import INDEX_FILE, WORDS, Part, parts_of, read_index, settings, tensors
from batchgen.models.sources import cached, fetched, is_hub_model, local
from batchgen.places import models_dir

# They draw their own noise (a Brownian tree) and ignore per-image generators, so that an image would depend on its
# neighbours (diffusers 0.42.1, schedulers/scheduling_{dpmsolver_sde,cosine_dpmsolver_multistep}.py).
REFUSED_SCHEDULERS = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")


class Timesteps(NamedTuple):
    """How timesteps are spaced (trailing, leading, linspace), and how far those of a flow model are shifted to noise.

    None leaves it to the model's configuration.
    """

    spacing: str | None = None
    shift: float | None = None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model in the diffusers layout: its folder, and which of the files in it a run loads.

    `variant`: the set of weight files, where a part has more than one. `safety_checker`: whether that part is loaded.
    `timesteps`: which the scheduler takes.
    `embeddings`: the words that are added to its text encoders, with their files.
    `texts`: how the model's family encodes texts, and what it is told of sizes.
    """

    folder: Path
    variant: str | None = None
    safety_checker: bool = False
    timesteps: Timesteps = Timesteps()
    embeddings: Embeddings = ()
    texts: TextOptions = TextOptions()

    def parts(self) -> list[Part]:
        """The parts that a run loads, by name. Raises ModelError where a part is missing."""
        return parts_of(self.folder, self.variant, self.safety_checker)

    @property
    def family(self) -> Family:
        """What differs between this model and those of other families. Raises ModelError where it is of none."""
        return family_in(self.folder).using(self.texts)


def find_model(model: ModelConfig) -> ModelFiles | None:
    """The model's files; None where something has to be downloaded or unpacked first (`download` does it).

    Raises ModelError for what can be none of these, and for what does not belong together.
    """
    return _files_of(model, local, make=False)


def try_unpacking(model: ModelConfig) -> None:
    """Raise ModelError where a file that a run would unpack is not whole. Nothing is unpacked."""
    _files_of(model, lambda key, text: cached(key, text, _revision(model, key)), make=None)


def in_cache(model: ModelConfig) -> ModelFiles | None:
    """The model's files, also where the hub's cache has them, with all their parts; None otherwise. Asks no network."""
    try:
        files = _files_of(model, lambda key, text: cached(key, text, _revision(model, key)), make=False)
        return files if files is not None and files.parts() else None
    except (ModelError, OSError, ValueError):  # a part is missing; the hub refuses a name that cannot be an id
        return None


def files_in(folder: Path, model: ModelConfig) -> ModelFiles:
    """The files of the model in a folder, as the configuration wants them. Raises ModelError."""
    checker = model.safety_checker != "off"
    timesteps = Timesteps(model.timestep_spacing, model.timestep_shift)
    return ModelFiles(folder, model.variant, checker, timesteps, named(model.embeddings), TextOptions.of(model))


def locate(model: ModelConfig) -> ModelFiles:
    """The model's files; what is not here is downloaded and unpacked. Raises ModelError."""
    return find_model(model) or download(model)


def download(model: ModelConfig) -> ModelFiles:
    """The model's files, downloaded unless they are in the cache, and unpacked where they are one file.

    Raises ModelError and DownloadError, in one line, where something cannot be had or does not belong together.
    """

    def get(key: str, text: str) -> Path:
        return fetched(key, text, _revision(model, key), model.variant, model.safety_checker != "off")

    files = _files_of(model, get, make=True)
    assert files is not None
    return files


def is_plain_hub(model: ModelConfig) -> bool:
    """Whether it is a whole model on the hub, with nothing of it from elsewhere. Raises ModelError."""
    whole = model.base is None and model.vae is None and is_hub_model(model.path)
    return whole and local("model.path", model.path) is None


def settled_paths(model: ModelConfig) -> ModelConfig:
    """The configuration with full paths, as workers find the model from any directory; bundled and hub models by name.

    Raises ModelError.
    """

    def full(key: str, text: str | None) -> str | None:
        found = None if text is None else local(key, text)
        return text if found is None or found.parent == models_dir() else str(found.resolve())

    path = full("model.path", model.path)
    assert path is not None
    base, vae = full("model.base", model.base), full("model.vae", model.vae)
    words = [f"{word}={file.resolve()}" for word, file in named(model.embeddings)]
    return replace(model, path=path, base=base, vae=vae, embeddings=words or None)


def _files_of(model: ModelConfig, get: Get, make: bool | None) -> ModelFiles | None:
    try:
        folder = assemble(model, get, make)
    except OSError as error:
        raise ModelError(f"{error.filename or model.path} cannot be used: {error.strerror or error}") from error
    return None if folder is None else files_in(folder, model)


def _revision(model: ModelConfig, key: str) -> str | None:
    return model.revision if key == "model.path" else None


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
    check_embeddings(model.embeddings, family.title, family.inverted, parts, model.texts.text_chunks)
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
