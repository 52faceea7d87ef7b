"""Batches of scenes, made in worker processes and drawn on the training device."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import CLIPTokenizer

from jobs.train_tiny.draw import Painter, Sprites, pack
from jobs.train_tiny.scenes import trained

TOKENS = 77
_UNCONDITIONAL = 0.1  # of the captions are empty, for guidance


class _Scenes(IterableDataset[dict[str, Tensor]]):
    def __init__(self, sprites: Sprites, tokenizer: CLIPTokenizer, rows: int) -> None:
        self._sprites, self._tokenizer, self._rows = sprites, tokenizer, rows

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = random.Random(torch.initial_seed())
        while True:
            scenes = [trained(rng, self._sprites.shapes) for _ in range(self._rows)]
            captions = ["" if rng.random() < _UNCONDITIONAL else scene.caption for scene in scenes]
            yield {**pack(scenes, self._sprites), "tokens": tokenize(self._tokenizer, captions)}


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token numbers, (rows, 77), padded as StableDiffusionPipeline does."""
    encoded = tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    tokens: Tensor = encoded.input_ids
    return tokens


class Pictures:
    """Endless batches: pictures (rows, 3, 128, 128) in -1..1, where the figures are, and captions' tokens."""

    def __init__(
        self, sprites: Sprites, tokenizer: CLIPTokenizer, rows: int, device: torch.device, workers: int
    ) -> None:
        scenes = _Scenes(sprites, tokenizer, rows)
        self._batches = iter(DataLoader(scenes, batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"))
        self._painter, self._device = Painter(sprites, device), device

    def __next__(self) -> tuple[Tensor, Tensor, Tensor]:
        packed = next(self._batches)
        pictures, covered = self._painter.draw({name: value for name, value in packed.items() if name != "tokens"})
        return pictures, covered, packed["tokens"].to(self._device)
