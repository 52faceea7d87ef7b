"""The second stage trains only the decoder, against a discriminator, so that edges are crisp.

The encoder stays as it is, and so do the latents. The discriminator sees patches (arXiv:1611.07004) and its
features are matched (arXiv:1711.11585); how its gradient is weighed follows arXiv:2012.09841.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from jobs.train_tiny.autoencoder import PIECE_SHARE, Decode, difference, pixel_weights, random_piece
from jobs.train_tiny.data import Pictures

PEAK_RATE = 5e-4
_DISCRIMINATOR_RATE = 3e-4
_ADVERSARIAL = 0.6  # how strong its gradient is, of the reconstruction's
_FEATURES = 4.0
_NOISE = 0.08  # of the latents' spread, at most: those that the UNet makes are not perfect
_WARMUP_SHARE = 0.03


class Discriminator(nn.Module):
    """Pictures (rows, 3, edge, edge) -> the features of each layer; the last are the verdicts, one a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                spectral_norm(nn.Conv2d(3, 48, 4, 2, 1)),
                spectral_norm(nn.Conv2d(48, 96, 4, 2, 1)),
                spectral_norm(nn.Conv2d(96, 192, 4, 2, 1)),
                spectral_norm(nn.Conv2d(192, 192, 3, 1, 1)),
                spectral_norm(nn.Conv2d(192, 1, 3, 1, 1)),
            ]
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """The features of each layer, as the class says."""
        found: list[Tensor] = []
        for layer in self.layers:
            found.append(layer(F.leaky_relu(found[-1], 0.2) if found else pictures))
        return found


class Sharpening:
    """The loss of a batch; the discriminator takes its own step for each."""

    def __init__(self, vae: AutoencoderKL, decode: Decode, pictures: Pictures, device: torch.device, compiled: bool):
        self._vae, self._pictures = vae, pictures
        self._decode = torch.compile(decode, dynamic=False) if compiled else decode
        self._discriminator = Discriminator().to(device)
        self._optimizer = torch.optim.AdamW(self._discriminator.parameters(), _DISCRIMINATOR_RATE, (0.5, 0.9))

    def __call__(self, share: float) -> Tensor:
        """See the class; `share` is the part of the training that has passed, 0..1."""
        pictures, covered, _ = next(self._pictures)
        weights = pixel_weights(covered)
        with torch.autocast(pictures.device.type, torch.bfloat16):
            with torch.no_grad():
                latents = self._vae.encode(pictures).latent_dist.mean.float()
                noise = (
                    torch.rand(len(latents), 1, 1, 1, device=latents.device) * _NOISE / self._vae.config.scaling_factor
                )
                latents = latents + torch.randn_like(latents) * noise
            piece, window = random_piece(latents, pictures)
            whole, part = self._decode(latents).float(), self._decode(piece).float()
        exact = difference(whole, pictures, weights)
        exact = exact + PIECE_SHARE * difference(part, pictures[window], weights[window])
        self._teach(pictures, whole.detach())
        if share < _WARMUP_SHARE:
            return exact
        likeness = self._unlikeness(pictures, whole)
        own, other = (torch.autograd.grad(loss, whole, retain_graph=True)[0].norm() for loss in (exact, likeness))
        return exact + _ADVERSARIAL * (own / (other + 1e-8)).detach() * likeness

    def _teach(self, real: Tensor, made: Tensor) -> None:
        # Hinge loss
        with torch.autocast(real.device.type, torch.bfloat16):
            verdicts = [self._discriminator(pictures)[-1].float() for pictures in (real, made)]
        loss = F.relu(1 - verdicts[0]).mean() + F.relu(1 + verdicts[1]).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def _unlikeness(self, real: Tensor, made: Tensor) -> Tensor:
        with torch.autocast(real.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = self._discriminator(real)
            found = self._discriminator(made)
        matched = [F.l1_loss(one.float(), goal.float()) for one, goal in zip(found[:-1], wanted[:-1], strict=True)]
        return _FEATURES * torch.stack(matched).mean() - found[-1].float().mean()
