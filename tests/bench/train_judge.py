"""The judge's accuracy on composites that it never saw, with their captions shuffled, and with broken figures.

--minutes trains it first. A part of the pictures that it learns from shows one broken figure (see broken.py).

python -m tests.bench.train_judge [--minutes 8, on a GPU]
"""

import argparse
import copy
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from jobs.train_tiny.draw import FONT, Painter, Sprites, pack
from jobs.train_tiny.scenes import KINDS, trained, unseen
from jobs.train_tiny.subjects import SUBJECTS
from tests.bench.broken import broken_textures
from tests.bench.judge import ANSWERS, WEIGHTS, Judge, answers, labels, load_judge, score
from tests.bench.record import Record

GOAL = 0.95
MOST_BROKEN_TAKEN = 0.1
_BROKEN = 0.5  # of the pictures of one figure, in training
_ROWS = 256


class _Fresh(IterableDataset[dict[str, Tensor]]):
    """Batches of packed scenes and their labels; the held-out ones too, since the judge must know these."""

    def __init__(self, sprites: Sprites, seed: int | None = None, broken: float = _BROKEN) -> None:
        """`broken`: the share of the pictures of one figure that show it broken."""
        self._sprites, self._seed, self._broken = sprites, seed, broken
        textures, self._unlike = broken_textures(sprites.textures)
        self.all_sprites = copy.copy(sprites)  # whole, then broken in each way
        self.all_sprites.textures = torch.cat((sprites.textures, textures.flatten(0, 1)))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = random.Random(torch.initial_seed() if self._seed is None else self._seed)
        shapes = self._sprites.shapes
        while True:
            scenes = [
                trained(rng, shapes) if rng.random() < 0.7 else unseen(rng, shapes, rng.choice(KINDS))
                for _ in range(_ROWS)
            ]
            packed, true = pack(scenes, self._sprites), labels(scenes)
            for row, scene in enumerate(scenes):
                if scene.second is None and scene.count == 1 and rng.random() < self._broken:
                    self._break(rng, packed["figures"][row], true["first"][row])
            yield {**packed, **{f"is_{name}": value for name, value in true.items()}}

    def _break(self, rng: random.Random, figures: Tensor, first: Tensor) -> None:
        # Puts a broken sprite in the place of the only figure, and says so in the label
        sprite, way = int(figures[0, 0]), rng.randrange(len(self._unlike))
        if self._unlike[way, sprite]:
            figures[0, 0] = (way + 1) * len(self._sprites.textures) + sprite
            first.fill_(len(SUBJECTS))


def _split(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    true = {name.removeprefix("is_"): value for name, value in batch.items() if name.startswith("is_")}
    return {name: value for name, value in batch.items() if not name.startswith("is_")}, true


def _worsen(pictures: Tensor) -> Tensor:
    # A little blur and noise, as a decoder adds, so that they don't decide.
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * 0.8
    noise = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * 0.08
    return torch.lerp(pictures, blurred, share) + torch.randn_like(pictures) * noise


def fresh_scores(judge: Judge, sprites: Sprites, device: torch.device, batches: int) -> dict[str, dict[str, float]]:
    """The scores on fresh composites, held-out ones among them: with their captions, and with them shuffled."""
    fresh = _Fresh(sprites, seed=time.time_ns(), broken=0)
    pairs, painter = iter(fresh), Painter(fresh.all_sprites, device)
    said, true = [], []
    for _ in range(batches):
        packed, own = _split(next(pairs))
        said.append(answers(judge, painter.draw(packed)[0]))
        true.append(own)
    all_said = {name: torch.cat([one[name] for one in said]) for name in ANSWERS}
    all_true = {name: torch.cat([one[name] for one in true]) for name in ANSWERS}
    order = torch.randperm(len(all_true["setting"]))
    shuffled = {name: value[order] for name, value in all_true.items()}
    return {"own": score(all_said, all_true), "shuffled": score(all_said, shuffled)}


def broken_taken(judge: Judge, sprites: Sprites, device: torch.device, batches: int) -> float:
    """The part of the broken figures, 0..1, in which the judge sees a whole subject all the same."""
    fresh = _Fresh(sprites, seed=time.time_ns(), broken=1)
    pairs, painter = iter(fresh), Painter(fresh.all_sprites, device)
    taken = []
    for _ in range(batches):
        packed, true = _split(next(pairs))
        said = answers(judge, painter.draw(packed)[0])["first"]
        taken.append(said[true["first"] == len(SUBJECTS)] != len(SUBJECTS))
    return float(torch.cat(taken).float().mean())


def _train(options: argparse.Namespace, sprites: Sprites, device: torch.device) -> None:
    fresh = _Fresh(sprites)
    painter = Painter(fresh.all_sprites, device)
    batches = iter(DataLoader(fresh, batch_size=None, num_workers=options.workers))
    judge = Judge().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.02)
    start, step, printed = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 500) * (1 - share)
        packed, true = _split(next(batches))
        pictures = _worsen(painter.draw(packed)[0])
        with torch.autocast(device.type, torch.bfloat16):
            said = judge(pictures)
        loss = sum(F.cross_entropy(said[name].float(), true[name].to(device)) for name in ANSWERS)
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 and time.monotonic() - printed > 20:
            printed = time.monotonic()
            print(f"judge: {share:.0%}, step {step}, loss {float(loss):.3f}", flush=True)
    save_file({name: value.half().contiguous() for name, value in judge.state_dict().items()}, WEIGHTS)


def main() -> None:
    """Train the judge if asked to, and record its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sprites = Sprites.of_font(options.font)
    if options.minutes:
        _train(options, sprites, device)
    record = Record("judge")
    judge = load_judge(device)
    scores = fresh_scores(judge, sprites, device, options.batches)
    for name, parts in scores.items():
        record.add(composites=options.batches * _ROWS, captions=name, **parts)
    for part, value in scores["own"].items():
        record.bar(f"{part} right on fresh composites", round(value, 4), at_least=GOAL)
    chance = {"subject": 0.02, "setting": 0.1, "both": 0.02, "relation": 0.35, "count": 0.5}
    for part, value in scores["shuffled"].items():
        record.bar(f"{part} right with shuffled captions", round(value, 4), below=chance[part])
    taken = broken_taken(judge, sprites, device, options.batches)
    record.bar("broken figures in which it sees a whole subject", round(taken, 4), below=MOST_BROKEN_TAKEN)
    record.write()


if __name__ == "__main__":
    main()
