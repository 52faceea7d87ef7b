"""Whether a model can make what a job wants. It is checked before a plan is written, and in a dry run too.

This module does not import torch. The checks that need torch run in a separate process, batchgen.pipeline.check; its
answer is kept where it is good.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batchgen.config.schema import Config
from batchgen.console import say
from batchgen.errors import ConfigError, ModelError
from batchgen.files import put_new, to_json
from batchgen.machine.versions import versions
from batchgen.models.aside import ask
from batchgen.models.beside import unused_line
from batchgen.models.families import FAMILIES
from batchgen.models.families.base import NEVER, Family
from batchgen.models.families.clip import CLIP_LAYERS
from batchgen.models.families.texts import holds_weights
from batchgen.models.find import ModelFiles, check_model, place_px
from batchgen.models.parts import Part, refuse_misspelt, settings
from batchgen.places import cache_dir
from batchgen.quality import refuse_large
from batchgen.types import Lora, Prompt, Reject, Shard

CHECK_COMMAND = [sys.executable, "-m", "batchgen.pipeline.check"]
# Raised when the check becomes stricter: kept answers are then not used.
_WAY_OF_CHECKING = 3
# Tiles overlap by a quarter, which has to be a whole number of latent places.
_TILE_PLACES = 4


class Admission:
    """The checks of one model for one job. They are made before a plan is written, never for a plan that exists."""

    def __init__(self, model: ModelFiles, config: Config, fingerprint: Callable[[], str]) -> None:
        """Check the model's files, its weights' names and shapes, its scheduler, and the tiles.

        `fingerprint` returns the model's; it is called once the files are found good. What is given and changes nothing
        is told. Raises ModelError and ConfigError, in one line, for what a run could not use.
        """
        self._model, self._config = model, config
        refuse_misspelt(model.folder, model.variant)
        _refuse_settings(model, config)
        parts = check_model(model, config.job.scheduler)
        _refuse_skips(model, parts)
        self._fingerprint = fingerprint()
        for remark in (*self._ask(set())["told"], *filter(None, (unused_line(model), *_without_effect(config)))):
            say(remark)
        (vae,) = [settings(part) for part in parts if part.name == "vae"]
        pixels = place_px(vae)
        self._multiple_px = model.family.patch * pixels
        tile_px = config.memory.policy.tile_px
        _refuse_uneven("memory.policy.tile_px", tile_px or 0, _TILE_PLACES * pixels, "VAE")

    def watch(self, shards: Iterator[Shard | Reject]) -> Iterator[Shard | Reject]:
        """Pass the shards on. After the last, check their sizes, numbers of steps and LoRA files.

        Raises ModelError for a size or a number of steps that the model cannot make and for a LoRA that does not fit
        it, and ConfigError for a size that the image format cannot hold.
        """
        sizes: dict[tuple[int, int], Prompt] = {}
        steps: dict[int, Prompt] = {}
        loras: dict[Lora, Prompt] = {}
        unheard: Prompt | None = None  # the first whose negative prompt the model does not take
        weighted: Prompt | None = None  # the first with a weight in it, where weights are not read
        for shard in shards:
            for batch in shard.batches if isinstance(shard, Shard) else ():
                sizes.setdefault(batch.size, batch.prompts[0])
                steps.setdefault(batch.prompts[0].steps, batch.prompts[0])
                for lora in batch.prompts[0].lora:
                    loras.setdefault(lora, batch.prompts[0])
                if unheard is None and batch.prompts[0].guided_above >= NEVER:
                    unheard = next((prompt for prompt in batch.prompts if prompt.negative_text), None)
                if weighted is None and not self._model.texts.prompt_weights:
                    weighted = next((prompt for prompt in batch.prompts if _has_weights(prompt)), None)
            yield shard
        job = self._config.job
        for (width, height), prompt in sorted(sizes.items()):
            where = "" if (width, height) == (job.width, job.height) else _where(prompt)
            refuse_large(self._config.output.format, width, height, where)
            what = "VAE" if self._model.family.patch == 1 else "denoiser"
            _refuse_uneven("width", width, self._multiple_px, what, where)
            _refuse_uneven("height", height, self._multiple_px, what, where)
        self._ask(steps)
        for line in self._ask_loras({lora.sha256: lora.path for lora in loras}):
            say(line)
        if unheard is not None:
            told = f"negative prompts change nothing: this {self._model.family.title} does without them"
            say(f"{told} (first: {unheard.source}:{unheard.line})")
        if weighted is not None:
            say(_unread_weights(self._model.family, weighted))

    def _ask(self, steps: Collection[int]) -> dict[str, Any]:
        model, scheduler = self._model, self._config.job.scheduler
        path = _place([self._fingerprint, scheduler, model.timesteps, asdict(model.texts)])
        kept = _kept(path)
        if kept is not None and set(steps) <= set(kept["steps"]):
            return kept
        answer = _answer(self._request | {"steps": sorted(steps), "likely": [self._config.job.steps]})
        answer["steps"] = sorted({*answer["steps"], *(kept["steps"] if kept else ())})
        _keep(path, answer)
        return answer

    def _ask_loras(self, files: dict[str, str]) -> list[str]:
        """Remarks about LoRA files, {digest: path}. Raises ModelError for one that does not fit the model."""
        places = {sha256: _place([self._fingerprint, "lora", sha256]) for sha256 in files}
        known = {sha256: _kept(place) for sha256, place in places.items()}
        unknown = {sha256: path for sha256, path in files.items() if known[sha256] is None}
        if unknown:
            told = _answer(self._request | {"loras": unknown})["loras"]
            for sha256 in unknown:
                known[sha256] = {"told": told[sha256], "steps": []}
                _keep(places[sha256], known[sha256])
        return [f"LoRA {files[sha256]}: {line}" for sha256, answer in known.items() for line in (answer or {})["told"]]

    @property
    def _request(self) -> dict[str, Any]:
        model = self._model
        return {
            "folder": str(model.folder.absolute()),
            "variant": model.variant,
            "safety_checker": model.safety_checker,
            "timesteps": model.timesteps,
            "texts": asdict(model.texts),
            "scheduler": self._config.job.scheduler,
        }


def _place(facts: list[Any]) -> Path:
    digest = hashlib.sha256(to_json([_WAY_OF_CHECKING, *facts, versions()]).encode()).hexdigest()
    return cache_dir() / "checks" / f"{digest[:32]}.json"


def _keep(path: Path, answer: Any) -> None:
    with suppress(OSError):  # without the cache, the next command checks again
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        put_new(path, to_json(answer).encode() + b"\n")


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        answer = json.loads(path.read_bytes())
        known = {"told": [str(one) for one in answer["told"]], "steps": [int(one) for one in answer["steps"]]}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return known


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if sys.stderr.isatty():
        print("batchgen: checking the model; it takes some seconds, once", file=sys.stderr)
    return ask(CHECK_COMMAND, request, f"the model in {request['folder']} could not be checked")


def _where(prompt: Prompt) -> str:
    return f" ({prompt.source}:{prompt.line})"


def _has_weights(prompt: Prompt) -> bool:
    return holds_weights(prompt.prompt) or holds_weights(prompt.negative_text)


def _unread_weights(family: Family, first: Prompt) -> str:
    reads = "prompt_weights" in family.heeds
    advice = "set model.prompt_weights=true to use them" if reads else f"{family.title} has no weights of words"
    return f"weights such as (word:1.2) are read as text (first: {first.source}:{first.line}); {advice}"


def _refuse_uneven(name: str, value_px: int, multiple_px: int, what: str, where: str = "") -> None:
    if value_px % multiple_px:
        below = value_px // multiple_px * multiple_px
        near = " or ".join(str(one) for one in (below, below + multiple_px) if one)
        raise ModelError(
            f"{name}={value_px}{where}: this model's {what} needs a multiple of {multiple_px}, such as {near}"
        )


def _refuse_settings(model: ModelFiles, config: Config) -> None:
    """Raise ConfigError for a setting that the model's family does not work with."""
    family = model.family
    if config.model.dtype == "fp16" and family.half != "fp16":
        raise ConfigError(f"model.dtype=fp16: {family.title} overflows in fp16; use {family.half} or auto")
    for name in model.texts.given:
        if name not in family.heeds:
            others = " and ".join(one.title for one in FAMILIES.values() if name in one.heeds)
            raise ConfigError(f"model.{name} is for {others}; {family.title} has no such setting: leave it out")
    if config.speed.traced and not family.convolutional:
        raise ConfigError(f"speed.traced=true: {family.title} cannot be traced; use speed.traced=false")


def _refuse_skips(model: ModelFiles, parts: Sequence[Part]) -> None:
    """Raise ModelError where texts would skip more layers than a text encoder has."""
    family, skip = model.family, model.texts.clip_skip
    for part in parts:
        if skip is not None and part.name in family.encoders:
            most = int(settings(part).get("num_hidden_layers", CLIP_LAYERS)) - family.spared
            if skip > most:
                raise ModelError(f"model.clip_skip={skip}: the model's {part.name} has only {most} layers to skip")


def _without_effect(config: Config) -> Iterator[str]:
    """A line for each setting that changes nothing here. Raises ConfigError where determinism=strict forbids that."""
    output = config.output
    if output.quality is not None and output.format == "png":
        yield f"output.quality={output.quality} changes nothing: png loses nothing, so it has no quality"
    if config.speed.attention == "xformers" and importlib.util.find_spec("xformers") is None:
        if config.determinism == "strict":
            raise ConfigError(
                "speed.attention=xformers: xformers is not installed, and determinism=strict allows no other: install "
                "it, or set speed.attention=sdpa"
            )
        yield "speed.attention=xformers changes nothing here: xformers is not installed, so sdpa is used"
