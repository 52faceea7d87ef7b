"""What differs between families of models: data, and six functions whose usual forms are here.

Denoising is the call of the family's own pipeline in diffusers 0.42.1 with encoded texts, noise and scales from here;
decoding is the engine's. Front doors read the data, so torch is imported inside the functions.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from batchgen.models.families.scales import RowGuidance
from batchgen.models.families.texts import TextOptions, weighted

if TYPE_CHECKING:
    import torch

Text = dict[str, "torch.Tensor"]
"""What the encoders made of one text, by the keywords of the pipeline's call: tensors without an axis of rows."""
NEVER = 100.0
"""As `guided_above`: no scale is above it, so the denoiser runs once a step for each image."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The encoded texts of one row; `negative` is None without guidance. `said`: whether it has a negative prompt."""

    text: Text
    negative: Text | None
    said: bool


class Family:
    """One family of models. Its data have the values that most transformers share; six functions use them.

    A text is encoded for a role, "prompt" or "negative". Latents are (rows, channels, places high, places wide)
    between `unpack` and `unscale`, wherever they are kept, cropped and divided.
    """

    title: str
    """What people call it."""
    pipeline: str
    """The name of its pipeline's class in diffusers."""
    denoiser = "transformer"
    """The part that denoises. Parts are named as in the pipeline and in the model's folder."""
    encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    optional: tuple[str, ...] = ()
    """Encoders and tokenizers that a model may lack."""
    inverted: tuple[str, ...] = ()
    """The text encoders that take the new words of textual inversions; none where they have no such files."""
    half = "bf16"
    """The dtype of 16 bits in which it works. fp16 overflows in most transformers."""
    convolutional = False
    """Whether its denoiser is the convolutional network that tracing and xformers are for, fed with doubled rows."""
    upcasts_vae = False
    """Whether its pipeline goes by the VAE's `force_upcast`; older VAEs have that field set without need."""
    patch = 2
    """The edge of a token in places of the latent. Sizes are whole tokens."""
    fold = 1
    """The edge in places of what the pipeline folds into one token of packed latents; 1 where latents are not packed"""
    latents_fp32 = False
    """Whether its pipeline keeps latents in fp32."""
    guided_above = 1.0
    """Above which scale there is guidance by a second pass with the negative prompt."""
    doubled = True
    """Whether guidance runs twice the rows at once. Else its two passes follow each other, or there is none."""
    distilled_if = ""
    """The key in the model's index that says that it was trained to do without guidance."""
    negatives_differ = False
    """Whether a text is encoded otherwise as a negative prompt than as a prompt."""
    text_rows = 4
    """How many texts are encoded at once. The shape is fixed, so that neighbours don't change a text's bits."""
    text_tokens = 512
    """How many tokens of a text the denoiser sees at most."""
    maps = 17.0
    """How many numbers a token has for each of the denoiser's width while it passes, all at once (measured)."""
    reads: tuple[str, int | None] = ("tokenizer", None)
    """The tokenizer that decides what is cut, and how many tokens of a text are read; None: as many as it says."""
    returned: tuple[str | None, ...] = ("prompt_embeds",)
    """The keyword of each thing that the pipeline's `encode_prompt` returns; None for what is not used."""
    encoding: Mapping[str, Any] = {}
    """Further keywords of `encode_prompt`."""
    call: Mapping[str, Any] = {}
    """Further keywords of the pipeline's call."""
    heeds: tuple[str, ...] = ()
    """The names of the `TextOptions` that it can use; others are refused."""
    spared = 0
    """How many of the last layers of each text encoder its texts never pass; `clip_skip` counts from there."""
    texts = TextOptions()
    """The options of the job."""

    def using(self, texts: TextOptions) -> Self:
        """The family as a job with these options uses it."""
        family = copy.copy(self)
        family.texts = texts
        return family

    @property
    def needed(self) -> list[str]:
        """The parts that every model of the family has."""
        names = {"scheduler", "vae", self.denoiser, *self.encoders, *self.tokenizers}
        return sorted(names - {*self.optional})

    def guidance_starts(self, index: Mapping[str, Any]) -> float:
        """Above which scale a model with this index has guidance."""
        return NEVER if self.distilled_if and index.get(self.distilled_if) else self.guided_above

    def read_by(self, denoiser: Mapping[str, Any]) -> tuple[str, int | None]:
        """`reads` of a model whose denoiser has this configuration."""
        return self.reads

    def pieces(self, text: str) -> list[tuple[str, float]]:
        """The pieces of a text that are tokenized, and their weights; the whole text where weights are not read."""
        return weighted(text) if self.texts.prompt_weights else [(text, 1.0)]

    def tokens(self, pipe: Any, tokenizer: Any, text: str) -> list[tuple[int, float]]:
        """All tokens of a text with their weights, without marks of start and end, however many the model reads."""
        found = []
        for piece, weight in self.pieces(text):
            if hasattr(pipe, "maybe_convert_prompt"):  # words that stand for several learned tokens
                piece = pipe.maybe_convert_prompt(piece, tokenizer)
            ids = tokenizer(piece, truncation=False, add_special_tokens=False, verbose=False).input_ids
            found += [(one, weight) for one in ids]
        return found

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode texts in a role. There are always `text_rows` of them."""
        results = pipe.encode_prompt(prompt=list(texts), device=device, **self.encoding)
        named = [(name, made) for name, made in zip(self.returned, results, strict=True) if name is not None]
        return [{name: made[row].clone() for name, made in named} for row in range(len(texts))]

    def conditions(self, pipe: Any, rows: Sequence[Pair]) -> dict[str, Any]:
        """The keywords of the pipeline's call that hold the texts of the rows and, with guidance, their negatives."""
        import torch

        texts = {name: torch.stack([row.text[name] for row in rows]) for name in rows[0].text}
        negatives = [row.negative for row in rows if row.negative is not None]
        return texts | {
            f"negative_{name}": torch.stack([one[name] for one in negatives]) for name in texts if negatives
        }

    def noise(self, pipe: Any, generators: Sequence["torch.Generator"], width: int, height: int) -> "torch.Tensor":
        """Starting noise as the pipeline takes it, in fp32 on the CPU. Each row is drawn only from its own generator.

        Noise drawn in half precision would be the same, rounded.
        """
        import torch

        channels, factor = getattr(pipe, self.denoiser).config.in_channels, pipe.vae_scale_factor
        shape = (channels // self.fold**2, height // factor, width // factor)
        drawn = torch.stack([torch.randn(shape, generator=one, dtype=torch.float32) for one in generators])
        return drawn if self.fold == 1 else packed(drawn, self.fold)

    def guidance(
        self, pipe: Any, scales: Sequence[float], device: "torch.device"
    ) -> tuple[dict[str, Any], AbstractContextManager[None]]:
        """The keywords of the pipeline's call for these scales of the rows, and a context for the call."""
        return {"guidance_scale": RowGuidance(scales, device)}, nullcontext()

    def unpack(self, pipe: Any, made: "torch.Tensor", width: int, height: int) -> "torch.Tensor":
        """Latents of (rows, channels, places high, places wide), from what the pipeline's call returned."""
        factor = pipe.vae_scale_factor
        return made if self.fold == 1 else unpacked(made, self.fold, height // factor, width // factor)

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """What the VAE decodes, from latents as `unpack` gives them."""
        return latents / float(vae.config["scaling_factor"]) + float(vae.config.get("shift_factor") or 0.0)


def packed(latents: "torch.Tensor", fold: int) -> "torch.Tensor":
    """Latents (rows, channels, height, width) as tokens of fold x fold places: (rows, tokens, channels x fold**2)."""
    rows, channels, height, width = latents.shape
    parts = latents.view(rows, channels, height // fold, fold, width // fold, fold)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(rows, -1, channels * fold**2)


def unpacked(tokens: "torch.Tensor", fold: int, height: int, width: int) -> "torch.Tensor":
    """The latents (rows, channels, height, width) that `packed` made tokens of."""
    rows, _, values = tokens.shape
    channels = values // fold**2
    parts = tokens.view(rows, height // fold, width // fold, channels, fold, fold)
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(rows, channels, height, width)
