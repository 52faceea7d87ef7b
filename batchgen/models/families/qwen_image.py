"""Qwen-Image, also of 2512."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family, Pair, Text
from batchgen.models.families.scales import RowGuidance

if TYPE_CHECKING:
    import torch


class QwenImage(Family):
    """Qwen-Image: texts of their own lengths under a true mask, packed latents, a VAE for films."""

    title = "Qwen-Image"
    pipeline = "QwenImagePipeline"
    fold = 2
    doubled = False
    text_rows = 1  # nothing pads them to one length, so that alone they have the same bits each time
    maps = 14.7
    reads = ("tokenizer", 512)

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode texts, each cut to its own length."""
        made, mask = pipe.encode_prompt(prompt=list(texts), device=device, max_sequence_length=512)  # as the call does
        lengths = [made.shape[1]] * len(texts) if mask is None else mask.sum(dim=1).tolist()
        return [{"prompt_embeds": one[:length].clone()} for one, length in zip(made, lengths, strict=True)]

    def conditions(self, pipe: Any, rows: Sequence[Pair]) -> dict[str, Any]:
        """Texts padded to the longest of them, with masks always: without one the negatives would lack theirs."""
        given = _masked([row.text["prompt_embeds"] for row in rows], "")
        negatives = [row.negative["prompt_embeds"] for row in rows if row.negative is not None]
        return given | (_masked(negatives, "negative_") if negatives else {})

    def guidance(
        self, pipe: Any, scales: Sequence[float], device: "torch.device"
    ) -> tuple[dict[str, Any], AbstractContextManager[None]]:
        """The scale under the keyword that this pipeline has for it."""
        return {"true_cfg_scale": RowGuidance(scales, device)}, nullcontext()

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Mean and deviation of each channel; an image is a film of one frame."""
        import torch

        mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        # As the pipeline does it, to the bit
        return (latents / (1.0 / std).to(latents) + mean.to(latents))[:, :, None]


def _masked(texts: Sequence["torch.Tensor"], prefix: str) -> dict[str, Any]:
    import torch

    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(one), dtype=torch.long) for one in texts], batch_first=True)
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return {f"{prefix}prompt_embeds": padded, f"{prefix}prompt_embeds_mask": mask.to(padded.device)}


FAMILY = QwenImage()
