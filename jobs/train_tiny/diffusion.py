"""The last stage trains the text encoder and the UNet on the autoencoder's latents."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from jobs.train_tiny.data import Pictures
from jobs.train_tiny.model import new_scheduler

PEAK_RATE = 1e-3
ROWS = 512
FRESH = 64  # rows of a batch that are new; the others come from the pool
_FIGURES = 2.0  # how much more a latent counts where there is a figure
_POOL = 200_000


class Generator(nn.Module):
    """Text encoder and UNet as one module: noisy latents, times and tokens in, v out."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, latents: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """(rows, channels, edge, edge), (rows,), (rows, 77) -> (rows, channels, edge, edge)."""
        texts = self.text_encoder(tokens)[0]
        velocity: Tensor = self.unet(latents, times, texts, return_dict=False)[0]
        return velocity


class Pool:
    """Latents, weights and tokens of the last pictures: each is trained on several times, with other noise."""

    def __init__(self, vae: AutoencoderKL, pictures: Pictures, rows: int = _POOL) -> None:
        self._vae, self._pictures, self._rows = vae, pictures, rows
        self._kept: tuple[Tensor, ...] = ()
        self._next = self._filled = 0

    @torch.no_grad()
    def batch(self, rows: int) -> tuple[Tensor, ...]:
        """Latents (rows, channels, edge, edge), weights (rows, 1, edge, edge) and tokens (rows, 77), new and old."""
        pictures, covered, tokens = next(self._pictures)
        with torch.autocast(pictures.device.type, torch.bfloat16):
            latents = self._vae.encode(pictures).latent_dist.mean
        latents = (latents * self._vae.config.scaling_factor).half()
        weights = (1 + _FIGURES * F.adaptive_avg_pool2d(covered, latents.shape[-2:])).half()
        fresh = (latents, weights, tokens)
        if not self._kept:
            self._kept = tuple(part.new_zeros(self._rows, *part.shape[1:]) for part in fresh)
        places = (torch.arange(len(latents), device=latents.device) + self._next) % self._rows
        for kept, part in zip(self._kept, fresh, strict=True):
            kept[places] = part
        self._next = (self._next + len(latents)) % self._rows
        self._filled = min(self._filled + len(latents), self._rows)
        old = torch.randint(0, self._filled, (rows - len(latents),), device=latents.device)
        chosen = torch.cat((places, old))
        return tuple(kept[chosen] for kept in self._kept)


class Denoising:
    """The loss of a batch: the squared error of v at random times (arXiv:2202.00512), figures counting more."""

    def __init__(self, generator: Generator, pool: Pool, device: torch.device, rows: int, compiled: bool) -> None:
        self._forward = torch.compile(generator, dynamic=False) if compiled else generator
        self._pool, self._rows = pool, rows
        signal = new_scheduler().alphas_cumprod.to(device)
        self._signal, self._noise = signal.sqrt(), (1 - signal).sqrt()

    def __call__(self, share: float) -> Tensor:
        """The loss of the class, which is the same throughout the training."""
        latents, weights, tokens = self._pool.batch(self._rows)
        latents = latents.float()
        times = torch.randint(0, len(self._signal), (len(latents),), device=latents.device)
        signal, spread = (part[times][:, None, None, None] for part in (self._signal, self._noise))
        noise = torch.randn_like(latents)
        with torch.autocast(latents.device.type, torch.bfloat16):
            made = self._forward(signal * latents + spread * noise, times, tokens)
        return (weights * (made.float() - (signal * noise - spread * latents)) ** 2).mean()
