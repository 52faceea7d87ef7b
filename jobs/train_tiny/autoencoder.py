"""The first stage trains an autoencoder whose pictures are crisp."""

from types import EllipsisType

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from jobs.train_tiny.data import Pictures

PEAK_RATE = 1.5e-3
_KL = 1e-4
_FIGURES = 3.0  # how much more a pixel of a figure counts
_EDGES = 1.0
_NOISE = 0.1  # a share of the latents' spread, because the UNet's latents are not perfect either
_CROP = 8  # places of a latent; pieces are decoded too, as in tiled decoding
PIECE_SHARE = 0.25


class Reconstruction:
    """The loss of a batch: absolute errors of colours and of their differences to neighbours, and a light KL term."""

    def __init__(self, vae: AutoencoderKL, pictures: Pictures, compiled: bool) -> None:
        self._pictures = pictures
        encode, decode = Encode(vae), Decode(vae)
        self._encode = torch.compile(encode, dynamic=False) if compiled else encode
        self._decode = torch.compile(decode, dynamic=False) if compiled else decode

    def __call__(self, share: float) -> Tensor:
        """The loss of the class, which is the same throughout the training."""
        pictures, covered, _ = next(self._pictures)
        weights = pixel_weights(covered)
        with torch.autocast(pictures.device.type, torch.bfloat16):
            moments = self._encode(pictures)
        mean, log_variance = moments.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        latents = mean + torch.randn_like(mean) * (torch.exp(0.5 * log_variance) + _NOISE)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        piece, window = random_piece(latents, pictures)
        with torch.autocast(pictures.device.type, torch.bfloat16):
            whole, part = self._decode(latents), self._decode(piece)
        loss = difference(whole.float(), pictures, weights)
        loss = loss + PIECE_SHARE * difference(part.float(), pictures[window], weights[window])
        return loss + _KL * kl


Window = tuple[EllipsisType, slice, slice]


class Encode(nn.Module):
    """AutoencoderKL's encoder as a module, so that it can be compiled."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, pictures: Tensor) -> Tensor:
        """(rows, 3, height, width) -> means and logarithms of variances (rows, 2 x channels, height / 8, width / 8)."""
        moments: Tensor = self.quant_conv(self.encoder(pictures))
        return moments


class Decode(nn.Module):
    """AutoencoderKL's decoder as a module."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: Tensor) -> Tensor:
        """(rows, channels, height, width) -> (rows, 3, 8 x height, 8 x width)."""
        pictures: Tensor = self.decoder(self.post_quant_conv(latents))
        return pictures


def random_piece(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Window]:
    """A random square of the latents, and which square of the pictures it is."""
    row, column = (int(place) for place in torch.randint(0, latents.shape[-1] - _CROP + 1, (2,)))
    factor = pictures.shape[-1] // latents.shape[-1]
    rows, columns = (slice(place * factor, (place + _CROP) * factor) for place in (row, column))
    return latents[:, :, row : row + _CROP, column : column + _CROP], (..., rows, columns)


def pixel_weights(covered: Tensor) -> Tensor:
    """How much each pixel counts, by how much of it a figure covers, 0..1."""
    return 1 + _FIGURES * covered


def difference(made: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """The weighted absolute error of colours and of their differences to neighbours."""
    wrong = made - real
    colours = (wrong.abs() * weights).mean()
    across = (wrong[..., :, 1:] - wrong[..., :, :-1]).abs() * weights[..., :, 1:]
    down = (wrong[..., 1:, :] - wrong[..., :-1, :]).abs() * weights[..., 1:, :]
    return colours + _EDGES * 0.5 * (across.mean() + down.mean())


@torch.no_grad()
def scale_latents(vae: AutoencoderKL, pictures: Pictures) -> None:
    """Set the scaling factor so that the latents' spread is 1."""
    latents = vae.encode(next(pictures)[0]).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
