"""A rehearsal without weights: a model's parts do one image's work on torch's meta device, which computes shapes only.

It finds what a worker would find much later: a tokenizer that fits no text encoder, a denoiser that fits no VAE,
missing settings. Only tokenizers and the safety checker's preparation of images are loaded as they are.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchgen.errors import ModelError, in_one_line
from batchgen.models.families.base import Family, Pair, Text
from batchgen.models.find import ModelFiles
from batchgen.models.parts import Part
from batchgen.pipeline.load import view_of
from batchgen.pipeline.schedulers import scheduler_of

_TEXTS = ("", "(word:1.5) " * 100)
_EDGE_PX = 64  # of the smallest image that can be asked for
_COLOURS = 3
_FEWEST_TOKENS = 3  # a text's marks of start and end, and one between


def rehearse(model: ModelFiles, parts: list[Part], scheduler: str, built: dict[str, Any]) -> None:
    """Let the parts work together once. `built`: the parts with weights, on the meta device.

    Raises ModelError, in one line, where a worker could not make images with them.
    """
    import diffusers
    import torch

    family = model.family
    kind = getattr(diffusers, family.pipeline)
    parameters: dict[str, Any] = dict.fromkeys(inspect.signature(kind).parameters)
    loaded = {name: part.float() for name, part in built.items()} | _loaded(model, parts)
    if "requires_safety_checker" in parameters:
        parameters["requires_safety_checker"] = False
    with _told(model, "its parts make no pipeline"):
        pipe = kind(**parameters | loaded | {"scheduler": scheduler_of(model.folder, scheduler, model.timesteps)})
    for name, encoder in zip(family.tokenizers, family.encoders, strict=True):
        if name in loaded and encoder in loaded:
            with _told(model, f"its {name} and its text encoder do not belong together"):
                _check_tokenizer(model, name, loaded[name], loaded[encoder])
    with torch.inference_mode():
        with _told(model, "its text encoders cannot encode a text"):
            text = _encoded(pipe, family)
        with _told(model, f"its {family.denoiser} does not fit the other parts"):
            made = _denoised(pipe, family, text)
        with _told(model, "its vae does not fit the other parts"):
            _check_factor(pipe.vae.config)
            images = pipe.vae.decode(family.unscale(pipe.vae, made), return_dict=False)[0]
            if images.shape[1] != _COLOURS:
                raise ValueError(f"{images.shape[1]} colours come out of it, not {_COLOURS}")
        if model.safety_checker:
            with _told(model, "its safety checker cannot look at an image"):
                _look(loaded["safety_checker"], loaded["feature_extractor"])


@contextmanager
def _told(model: ModelFiles, what: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # the libraries raise anything for settings that they do not expect
        advice = "copy all of it from one place"
        raise ModelError(f"the model in {model.folder} cannot work: {what}: {in_one_line(error)}; {advice}") from error


def _check_factor(config: Any) -> None:
    factor = config.get("scaling_factor", 1.0)
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor == 0:
        raise ValueError(f"scaling_factor is {factor!r} in vae/config.json, and must be a number")


def _loaded(model: ModelFiles, parts: list[Part]) -> dict[str, Any]:
    """The tokenizers, and what prepares images for the safety checker."""
    import transformers

    found = {}
    with view_of(model.folder, parts) as view:
        for part in parts:
            if part.weights or part.name == "scheduler":
                continue
            try:
                kind = getattr(transformers, part.kind)
                found[part.name] = kind.from_pretrained(view / part.name, local_files_only=True)
            except Exception as error:  # a file may hold anything
                where = model.folder / part.name
                reason = in_one_line(error).replace(str(view), str(model.folder))
                raise ModelError(f"{where} cannot be loaded: {reason}; download or copy it again") from error
    return found


def _check_tokenizer(model: ModelFiles, name: str, tokenizer: Any, encoder: Any) -> None:
    # Its ids are places in the encoder's table of tokens; CLIP's texts have one length.
    config, kept = encoder.config.get_text_config(), tokenizer.model_max_length
    longest = getattr(config, "max_position_embeddings", 0)
    if "clip" in config.model_type and (not isinstance(kept, int) or not _FEWEST_TOKENS <= kept <= longest):
        said = f"has model_max_length {kept}" if isinstance(kept, int) and kept < 10**6 else "has no model_max_length"
        raise ModelError(
            f"{model.folder / name} {said}, but the text encoder takes up to {longest} tokens: set model_max_length to "
            f"{longest} in its tokenizer_config.json"
        )
    highest, known = max(tokenizer.get_vocab().values(), default=0), config.vocab_size
    if highest >= known:
        raise ModelError(
            f"{model.folder / name} has tokens up to number {highest}, but the text encoder knows only {known}: copy "
            "both from the same model"
        )


def _encoded(pipe: Any, family: Family) -> Text:
    import torch

    texts = [_TEXTS[row % len(_TEXTS)] for row in range(family.text_rows)]
    with _without_values():
        return family.encode(pipe, texts, "prompt", torch.device("meta"))[0]


def _without_values() -> Any:
    """A context in which masks on the meta device, which have no values, hide nothing: texts stay as they are."""
    import torch
    from torch.overrides import TorchFunctionMode

    class _Whole(TorchFunctionMode):
        length = 0  # of the masked texts

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
                if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
                    self.length = args[1].shape[-1]
                    return args[0].flatten(0, args[1].dim() - 1)
                if func in (torch.Tensor.__bool__, torch.Tensor.item):
                    return True
                if func is torch.Tensor.tolist:
                    return [self.length] * len(args[0])
            return func(*args, **(kwargs or {}))

    return _Whole()


def _is_mask(place: Any) -> bool:
    import torch

    return isinstance(place, torch.Tensor) and place.dtype == torch.bool and place.is_meta


def _denoised(pipe: Any, family: Family, text: Text) -> Any:
    """What the denoiser makes of a latent, given what the pipeline's own call gives it, as the VAE's latent."""
    import diffusers
    import torch

    config = getattr(pipe, family.denoiser).config
    if family.convolutional and config.in_channels != config.out_channels:
        channels = f"{config.in_channels} channels and gives {config.out_channels}"
        raise ValueError(f"its {family.denoiser} takes {channels}, as for inpainting or editing")
    # The model's own scheduler was tried before, and not all work without values.
    plain = diffusers.DDIMScheduler if family.convolutional else diffusers.FlowMatchEulerDiscreteScheduler
    pipe.register_modules(scheduler=plain())
    pipe.scheduler.step = lambda made, *_, **__: (made,)
    pipe.set_progress_bar_config(disable=True)
    token_px = family.patch * pipe.vae_scale_factor
    edge = math.ceil(_EDGE_PX / token_px) * token_px
    noise = family.noise(pipe, [torch.Generator()], edge, edge).to("meta")
    keywords, hooked = family.guidance(pipe, [0.0], noise.device)
    with hooked, _without_values():
        made = pipe(
            **family.conditions(pipe, [Pair(text, None, True)]), **keywords, **family.call, latents=noise,
            num_inference_steps=1, width=edge, height=edge, output_type="latent", return_dict=False,
        )[0]  # fmt: skip
    return family.unpack(pipe, made, edge, edge)


def _look(checker: Any, extractor: Any) -> None:
    from PIL import Image

    seen = extractor(Image.new("RGB", (_EDGE_PX, _EDGE_PX)), return_tensors="pt").pixel_values
    checker.visual_projection(checker.vision_model(seen.to("meta"))[1])
