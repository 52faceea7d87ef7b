"""Z-Image: Turbo and base."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family, Pair, Text
from batchgen.models.families.scales import TurnsOfRows

if TYPE_CHECKING:
    import torch


class ZImage(Family):
    """Z-Image: lists of texts of their own lengths, and guidance from above 0, added to the prompt's row after row."""

    title = "Z-Image"
    pipeline = "ZImagePipeline"
    latents_fp32 = True
    guided_above = 0.0
    text_rows = 2
    maps = 16.6
    reads = ("tokenizer", 509)  # and three tokens before the text

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode a copy of the texts, because the pipeline alters the list that it is given."""
        made, _ = pipe.encode_prompt(prompt=list(texts), device=device, do_classifier_free_guidance=False)
        return [{"prompt_embeds": one.clone()} for one in made]

    def conditions(self, pipe: Any, rows: Sequence[Pair]) -> dict[str, Any]:
        """Lists of texts, each of its own length."""
        negatives = [row.negative["prompt_embeds"] for row in rows if row.negative is not None]
        given = {"prompt_embeds": [row.text["prompt_embeds"] for row in rows]}
        return given | ({"negative_prompt_embeds": negatives} if negatives else {})

    def guidance(
        self, pipe: Any, scales: Sequence[float], device: "torch.device"
    ) -> tuple[dict[str, Any], AbstractContextManager[None]]:
        """A scale that takes turns, because the pipeline computes row after row."""
        return {"guidance_scale": TurnsOfRows(scales)}, nullcontext()


FAMILY = ZImage()
