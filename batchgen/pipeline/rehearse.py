"""A rehearsal without weights: a model's parts do one image's work on torch's meta device, which computes shapes only.

It finds what a worker would find much later: a tokenizer that fits no text encoder, a UNet that fits no VAE, settings
that are missing. Only tokenizers and the safety checker's preparation of images are loaded as they are.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchgen.errors import ModelError, in_one_line
from batchgen.models.find import FAMILIES, ModelFiles
from batchgen.models.parts import Part, read_index
from batchgen.pipeline.load import view_of
from batchgen.pipeline.scaling import unscale
from batchgen.pipeline.schedulers import scheduler_of

_TEXTS = ("", "word " * 100)
_EDGE_PX = 64  # of the smallest image that can be asked for
_COLOURS = 3
_FEWEST_TOKENS = 3  # a text's marks of start and end, and one between


def rehearse(model: ModelFiles, parts: list[Part], scheduler: str, built: dict[str, Any]) -> None:
    """Let the parts work together once. `built`: the parts with weights, on the meta device.

    Raises ModelError, in one line, where a worker could not make images with them.
    """
    import diffusers
    import torch

    family = read_index(model.folder)[0]
    kind = getattr(diffusers, family)
    parameters: dict[str, Any] = dict.fromkeys(inspect.signature(kind).parameters)
    loaded = {name: part.float() for name, part in built.items()} | _loaded(model, parts)
    if "requires_safety_checker" in parameters:
        parameters["requires_safety_checker"] = False
    with _told(model, "its parts make no pipeline"):
        pipe = kind(**parameters | loaded | {"scheduler": scheduler_of(model.folder, scheduler)})
    for name in [name for name in loaded if name.startswith("tokenizer")]:
        with _told(model, f"its {name} and its text encoder are not CLIP's"):
            _check_tokenizer(model, name, loaded[name], loaded[name.replace("tokenizer", "text_encoder")])
    with torch.inference_mode():
        with _told(model, "its text encoders cannot encode a text"):
            texts = [one for one in _encoded(pipe) if one is not None]
        with _told(model, "its unet does not fit the other parts"):
            made = _denoised(pipe, texts)
        with _told(model, "its vae does not fit the other parts"):
            _check_factor(pipe.vae.config.get("scaling_factor"))
            images = pipe.vae.decode(unscale(made, FAMILIES[family], pipe.vae.config), return_dict=False)[0]
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


def _check_factor(factor: Any) -> None:
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
    # Its ids are places in the encoder's table of tokens, and its texts have one length.
    longest, kept = encoder.config.max_position_embeddings, tokenizer.model_max_length
    if not isinstance(kept, int) or not _FEWEST_TOKENS <= kept <= longest:
        said = f"has model_max_length {kept}" if isinstance(kept, int) and kept < 10**6 else "has no model_max_length"
        raise ModelError(
            f"{model.folder / name} {said}, but the text encoder takes up to {longest} tokens: set model_max_length to "
            f"{longest} in its tokenizer_config.json"
        )
    highest, known = max(tokenizer.get_vocab().values(), default=0), encoder.config.vocab_size
    if highest >= known:
        raise ModelError(
            f"{model.folder / name} has tokens up to number {highest}, but the text encoder knows only {known}: copy "
            "both from the same model"
        )


def _encoded(pipe: Any) -> Any:
    return pipe.encode_prompt(
        prompt=list(_TEXTS), device="meta", num_images_per_prompt=1, do_classifier_free_guidance=False
    )


def _denoised(pipe: Any, texts: list[Any]) -> Any:
    """What the UNet makes of a latent, in the latent's shape."""
    import torch

    unet, edge = pipe.unet, _EDGE_PX // pipe.vae_scale_factor
    taken, given = unet.config.in_channels, unet.config.out_channels
    if taken != given:
        raise ValueError(f"its unet takes {taken} channels and gives {given}, as for inpainting or editing")
    latents = torch.empty(1, taken, edge, edge, device="meta")
    return unet(latents, torch.tensor(1), **_conditions(pipe, texts), return_dict=False)[0]


def _conditions(pipe: Any, texts: list[Any]) -> dict[str, Any]:
    """What the pipeline gives its UNet for one text, as __call__ of diffusers 0.42.1 does."""
    conditions = {"encoder_hidden_states": texts[0][:1]}
    if len(texts) > 1:
        size, width = (_EDGE_PX, _EDGE_PX), pipe.text_encoder_2.config.projection_dim
        ids = pipe._get_add_time_ids(size, (0, 0), size, dtype=texts[0].dtype, text_encoder_projection_dim=width)
        conditions["added_cond_kwargs"] = {"text_embeds": texts[1][:1], "time_ids": ids.to("meta")}
    return conditions


def _look(checker: Any, extractor: Any) -> None:
    from PIL import Image

    seen = extractor(Image.new("RGB", (_EDGE_PX, _EDGE_PX)), return_tensors="pt").pixel_values
    checker.visual_projection(checker.vision_model(seen.to("meta"))[1])
