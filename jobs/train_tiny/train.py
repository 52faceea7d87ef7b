"""Train the small Stable Diffusion that is bundled with the package: python -m jobs.train_tiny.train --minutes 60

First the autoencoder, then its decoder alone, then text encoder and UNet on its latents. Stopped, the same command
goes on from its checkpoints. See README.md beside this file.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from jobs.train_tiny import autoencoder, diffusion, sharpening
from jobs.train_tiny.autoencoder import Decode, Reconstruction, scale_latents
from jobs.train_tiny.data import Pictures
from jobs.train_tiny.diffusion import Denoising, Generator, Pool
from jobs.train_tiny.draw import FONT, Sprites, sheet
from jobs.train_tiny.loop import train
from jobs.train_tiny.model import new_text_encoder, new_tokenizer, new_unet, new_vae, save_pipeline
from jobs.train_tiny.scenes import trained
from jobs.train_tiny.sharpening import Sharpening

ROOT = Path(__file__).resolve().parents[2]
_SHARES = {"autoencoder": 0.12, "sharpening": 0.24, "generator": 0.64}  # of the minutes
_VAE_ROWS = 192
_SHOWN = 24


def main() -> None:
    """Run the stages that are not done yet, then write the model's folder."""
    options = _parser().parse_args()
    torch.manual_seed(options.seed + time.time_ns() % 2**32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    job = _Job(options)
    vae = job.autoencoder()
    if options.stage in ("sharpening", "all") and options.start is None:
        job.sharpen(vae)
    if options.stage in ("generator", "all"):
        generator = job.generator(vae)
    if options.stage == "all":
        save_pipeline(vae.cpu(), generator.text_encoder.cpu(), job.tokenizer, generator.unet.cpu(), options.out)
        total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
        print(f"{options.out}: {total:,} bytes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of training in all, on one GPU")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "outputs" / "train_tiny")
    parser.add_argument("--out", type=Path, default=ROOT / "batchgen" / "models" / "tiny_2")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="go on from this model, and train its generator")
    parser.add_argument("--font", type=Path, default=FONT, help="NotoColorEmoji.ttf of fonts-noto-color-emoji")
    parser.add_argument("--stage", choices=(*_SHARES, "all"), default="all", help="run this one alone")
    parser.add_argument("--rate", type=float, help="the generator's peak rate of learning")
    parser.add_argument("--rows", type=float, default=1.0, help="batch sizes are multiplied by this")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--seed", type=int, default=0)
    return parser


class _Job:
    """Runs the stages. Each trains until its share of the minutes is spent; one that is done only loads its result."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._folder = options, options.checkpoints
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._sprites = Sprites.of_font(options.font)
        self.tokenizer = self._tokenizer()

    def _tokenizer(self) -> CLIPTokenizer:
        folder = (self._options.start or self._folder) / "tokenizer"
        if not folder.exists():
            rng = random.Random(0)
            captions = [trained(rng, self._sprites.shapes).caption for _ in range(60_000)]
            prompts = (ROOT / "jobs" / "mars_batch.txt").read_text(encoding="utf-8").splitlines()
            new_tokenizer([*captions, *prompts]).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def _pictures(self, rows: int) -> Pictures:
        return Pictures(self._sprites, self.tokenizer, self._rows(rows), self._device, self._options.workers)

    def _rows(self, rows: int) -> int:
        return max(4, int(rows * self._options.rows))

    def _train(self, stage: str, module: nn.Module, loss: Callable[[float], Tensor], peak_rate: float) -> nn.Module:
        limit_s = self._options.minutes * 60 * (1 if self._options.start else _SHARES[stage])
        return train(module, loss, self._folder / f"{stage}.pt", limit_s, peak_rate)

    def autoencoder(self) -> AutoencoderKL:
        """Train the autoencoder and set the scale of its latents."""
        folder = (self._options.start or self._folder) / "vae"
        if folder.exists():
            kept = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
            return kept.to(self._device, memory_format=torch.channels_last)
        pictures = self._pictures(_VAE_ROWS)
        vae = new_vae().to(self._device, memory_format=torch.channels_last)
        loss = Reconstruction(vae, pictures, self._options.compile)
        best = self._train("autoencoder", vae, loss, autoencoder.PEAK_RATE)
        assert isinstance(best, AutoencoderKL)
        scale_latents(best, pictures)
        self._show(best, pictures, "autoencoder")
        best.save_pretrained(folder)
        return best

    def sharpen(self, vae: AutoencoderKL) -> None:
        """Train the decoder further and replace its weights by sharper ones."""
        pictures = self._pictures(_VAE_ROWS)
        decode = Decode(vae.requires_grad_(False)).requires_grad_(True)
        loss = Sharpening(vae, decode, pictures, self._device, self._options.compile)
        best = self._train("sharpening", decode, loss, sharpening.PEAK_RATE)
        decode.load_state_dict(best.state_dict())
        self._show(vae, pictures, "sharpening")

    @torch.no_grad()
    def _show(self, vae: AutoencoderKL, pictures: Pictures, stage: str) -> None:
        batches = [next(pictures)[0][:1] for _ in range(_SHOWN)]
        real = torch.cat(batches)
        made = vae.decode(vae.encode(real).latent_dist.mean).sample.clamp(-1, 1)
        psnr_db = float(-10 * torch.log10(F.mse_loss(made, real) / 4))
        print(f"{stage}: reconstructions at {psnr_db:.1f} dB", flush=True)
        pairs = torch.stack((real.unflatten(0, (2, -1)), made.unflatten(0, (2, -1))), 1)
        sheet(pairs.flatten(0, 2), 12).save(self._folder / f"{stage}.png")

    def generator(self, vae: AutoencoderKL) -> Generator:
        """Train the text encoder and the UNet on the autoencoder's latents."""
        generator = Generator(*self._parts()).to(self._device)
        pool = Pool(vae, self._pictures(diffusion.FRESH))
        loss = Denoising(generator, pool, self._device, self._rows(diffusion.ROWS), self._options.compile)
        best = self._train("generator", generator, loss, self._options.rate or diffusion.PEAK_RATE)
        assert isinstance(best, Generator)
        return best

    def _parts(self) -> tuple[CLIPTextModel, UNet2DConditionModel]:
        start = self._options.start
        if start is None:
            return new_text_encoder(self.tokenizer), new_unet()
        text_encoder = CLIPTextModel.from_pretrained(start / "text_encoder", dtype=torch.float32)
        return text_encoder, UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)


if __name__ == "__main__":
    main()
