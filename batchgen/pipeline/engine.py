"""The engine: encode, denoise and decode with a diffusers pipeline."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from batchgen.engine import KEPT_TEXTS
from batchgen.machine.dtype import resolve_dtype
from batchgen.machine.host import own_room
from batchgen.machine.meters import Gauge, Stopwatch
from batchgen.memory.loading import refuse_to_load
from batchgen.memory.refused import memory_was_refused
from batchgen.models.embeddings import readable
from batchgen.models.families.base import NEVER, Pair, Text
from batchgen.models.find import ModelFiles
from batchgen.padding import pad, padded_rows, spans
from batchgen.pipeline.apply import LoadedModel
from batchgen.pipeline.load import DTYPES
from batchgen.pipeline.noise import generators, seeded_steps
from batchgen.pipeline.tiling import set_tiling
from batchgen.policy import Policy
from batchgen.quality import is_blank
from batchgen.types import Decoded, Lora, Prompt


@dataclass(frozen=True)
class EncodedText:
    """What the text encoders made of one text, by its role. `cut` is the text beyond what the model reads."""

    roles: dict[str, Text]
    cut: str | None


class DiffusersEngine:
    """Runs one model on one device. Between calls it keeps no state except a cache of encoded texts.

    `beat` is called after each denoising step, each decode and each group of texts. On a GPU it tells that the host
    makes progress. The device queues some thousand kernels and then lets the host wait, so a kernel that hangs stops
    the beat a few steps later, and at the latest when latents or pixels are copied back.
    """

    def __init__(
        self,
        model: ModelFiles,
        scheduler: str,
        dtype: str,
        cap_bytes: int | None = None,
        loras: Mapping[str, Path] | None = None,
    ) -> None:
        """`cap_bytes`: what this process may take of a GPU's memory. `loras`: LoRA files that were moved, by digest.

        Raises ModelError, MemoryNeededError where the host cannot hold what loading takes, and as `LoadedModel`.
        """
        on_cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if on_cuda else "cpu")
        self.device_kind = torch.cuda.get_device_name() if on_cuda else "cpu"
        self._family = model.family
        capability = torch.cuda.get_device_capability() if on_cuda else None
        self.dtype = resolve_dtype(dtype, capability, self._family.half)
        self.gauge = Gauge(cap_bytes) if on_cuda else None
        self.beat: Callable[[], None] = lambda: None
        self._checked = model.safety_checker
        refuse_to_load(model, self.dtype, on_cuda, own_room(os.environ))
        self._model = LoadedModel(model, scheduler, self.dtype, self.device, loras or {})
        self._texts: OrderedDict[str, EncodedText] = OrderedDict()
        self._merged: tuple[Lora, ...] = ()  # when the texts were encoded
        self.scheduler_name = type(self._pipe.scheduler).__name__

    @property
    def _pipe(self) -> Any:
        return self._model.pipe

    @property
    def _denoiser(self) -> Any:
        return getattr(self._pipe, self._family.denoiser)

    def prepare(self, policy: Policy) -> tuple[Policy, str | None]:
        """Set the model up for the stages that follow. Returns the policy that the device can run, and why."""
        torch.set_num_threads(policy.threads)
        return self._model.apply(policy)

    @contextmanager
    def passes(self) -> Iterator[list[Stopwatch]]:
        """A context in which each call of the denoiser is timed by a new stopwatch in the list."""
        watches: list[Stopwatch] = []

        def start(*_: Any) -> None:
            watches.append(Stopwatch())
            watches[-1].__enter__()

        hooks = [
            self._denoiser.register_forward_pre_hook(start),
            self._denoiser.register_forward_hook(lambda *_: watches[-1].__exit__()),
        ]
        try:
            yield watches
        finally:
            for hook in hooks:
                hook.remove()

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether `error` is one of the ways in which torch reports that the device or the host refused memory."""
        return memory_was_refused(error)

    def collect(self) -> None:
        """Give back to the device memory that nothing uses and that was kept for later."""
        self._model.collect()

    def recover(self) -> None:
        """Free what can be freed after an out-of-memory error, once its exception is gone, and repair the pipeline."""
        self._model.recover()

    @torch.inference_mode()
    def encode(self, prompts: Sequence[Prompt]) -> dict[str, EncodedText]:
        """Encode each distinct text of the prompts and their negative prompts once. Returns text -> EncodedText.

        The prompts share their LoRA. Raises ModelError where its file is not the planned one any more.
        """
        self._merge(prompts)
        negatives = [prompt.negative_text for prompt in prompts if prompt.is_guided]
        roles = [(prompt.prompt, "prompt") for prompt in prompts] + [(text, self._negative) for text in negatives]
        wanted = list(dict.fromkeys(text for text, _ in roles))
        for role in ("prompt", "negative"):
            missing = dict.fromkeys(text for text, its in roles if its == role and not self._has(text, role))
            self._encode_texts(list(missing), role)
        encoded = {text: self._texts[text] for text in wanted}
        for text in wanted:
            self._texts.move_to_end(text)
        while len(self._texts) > KEPT_TEXTS:
            self._texts.popitem(last=False)
        return encoded

    def _merge(self, prompts: Sequence[Prompt]) -> None:
        loras = prompts[0].lora
        self._model.merge(loras)
        if loras != self._merged:
            self._texts.clear()  # a LoRA may change the text encoders, too
            self._merged = loras

    @property
    def _negative(self) -> str:
        # The role of negative prompts; most families encode them as they encode prompts.
        return "negative" if self._family.negatives_differ else "prompt"

    def _has(self, text: str, role: str) -> bool:
        return text in self._texts and role in self._texts[text].roles

    def _encode_texts(self, texts: list[str], role: str) -> None:
        if texts:
            self._model.enter("encode")
        for span in spans(len(texts), self._family.text_rows):
            together = [texts[place] for place in pad([*span], self._family.text_rows)]
            made = self._family.encode(self._pipe, together, role, self.device)
            for text, one in zip(together[: len(span)], made, strict=False):
                known = self._texts[text].roles if text in self._texts else {}
                self._texts[text] = EncodedText(known | {role: one}, self._cut(text))
            self.beat()

    def _cut(self, text: str) -> str | None:
        name, room = self._family.read_by(self._denoiser.config)
        tokenizer = getattr(self._pipe, name, None) or self._pipe.tokenizer
        if room is None or name not in self._pipe.components:
            one = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
            room = one * self._family.texts.text_chunks
        ids = [one for one, _ in self._family.tokens(self._pipe, tokenizer, text)]
        return readable(tokenizer.decode(ids[room:])) if len(ids) > room else None

    @torch.inference_mode()
    def denoise(self, texts: dict[str, EncodedText], prompts: Sequence[Prompt], policy: Policy) -> list[torch.Tensor]:
        """The latents of each prompt, (channels, places high, places wide), made at once with the policy's padding."""
        self._merge(prompts)
        first = prompts[0]
        self._model.enter("denoise")
        self._model.settle((first.width, first.height))
        places = pad(range(len(prompts)), padded_rows(len(prompts), policy.micro_batch))
        rows = [prompts[place] for place in places]
        row_generators = generators([row.seed for row in rows])
        family, pipe = self._family, self._pipe
        most = NEVER if first.is_guided else family.guided_above  # as planned, also where the pipeline would go on
        scales = [min(row.guidance, most) for row in rows]
        noise = family.noise(pipe, row_generators, first.width, first.height)
        keywords, hooked = family.guidance(pipe, scales, self.device)
        with self._model.attention(), hooked, seeded_steps(pipe.scheduler, row_generators):
            made = pipe(
                **family.conditions(pipe, [self._pair(texts, row) for row in rows]),
                **keywords,
                **family.call,
                latents=noise.to(self.device, torch.float32 if family.latents_fp32 else DTYPES[self.dtype]),
                generator=row_generators,
                num_inference_steps=first.steps,
                width=first.width,
                height=first.height,
                output_type="latent",
                return_dict=False,
                callback_on_step_end=self._after_step,
                callback_on_step_end_tensor_inputs=[],  # without tensors nothing waits for the device
            )[0]
        return list(family.unpack(pipe, made, first.width, first.height)[: len(prompts)])

    def _after_step(self, *_: Any) -> dict[str, Any]:
        self.beat()
        return {}

    def _pair(self, texts: dict[str, EncodedText], row: Prompt) -> Pair:
        negative = texts[row.negative_text].roles[self._negative] if row.is_guided else None
        return Pair(texts[row.prompt].roles["prompt"], negative, bool(row.negative_prompt))

    @torch.inference_mode()
    def decode(self, latents: Sequence[torch.Tensor], policy: Policy) -> list[Decoded]:
        """Decode the latents at once. Images that are not finite or are blank are decoded again in fp32."""
        self._model.enter("decode")
        set_tiling(self._pipe.vae, policy.tile_px, self._pipe.vae_scale_factor)
        # A chunk is always full, so that an image's bits never depend on how many are left. Chunks are small.
        places = pad(range(len(latents)), policy.decode_chunk)
        rows = torch.stack([latents[place] for place in places])
        decode = self._model.decoder(whole=policy.tile_px == 0)
        images = self._decode_in(self._model.vae_dtype, rows, decode)[: len(latents)]
        retried = [image is None or is_blank(image) for image in images]
        for place, bad in enumerate(retried):
            if bad:
                images[place] = self._decode_in(torch.float32, latents[place][None], self._pipe.vae.decode)[0]
        self.beat()
        height, width = (edge * self._pipe.vae_scale_factor for edge in latents[0].shape[-2:])
        flagged = self._flags(images, width, height)
        rows_of = zip(images, retried, flagged, strict=True)
        return [Decoded(image, width, height, again, flag) for image, again, flag in rows_of]

    def warm_up(self, prompts: Sequence[Prompt], policy: Policy) -> None:
        """Compile what the policy compiles, for a micro-batch of prompts like these and a chunk of decoding."""
        with self._model.warming():
            latents = self.denoise(self.encode(prompts), prompts, policy)
            self.decode(latents[: policy.decode_chunk], policy)

    def crop(self, latent: torch.Tensor, width_px: int, height_px: int) -> torch.Tensor:
        """The latent of the top left corner of an image."""
        factor = self._pipe.vae_scale_factor
        return latent[:, : height_px // factor, : width_px // factor]

    def _flags(self, images: Sequence[bytes | None], width: int, height: int) -> list[bool | None]:
        # What the model's safety checker says about each image; None if it is off, or there is no image
        if not self._checked:
            return [None] * len(images)
        return [None if image is None else self._is_flagged(image, width, height) for image in images]

    def _is_flagged(self, pixels: bytes, width: int, height: int) -> bool:
        picture = Image.frombytes("RGB", (width, height), pixels)
        checker = self._pipe.safety_checker
        seen = self._pipe.feature_extractor(picture, return_tensors="pt").pixel_values
        # The checker paints what it flags black, so it is given an array that nobody needs.
        _, flags = checker(clip_input=seen.to(self.device, checker.dtype), images=np.zeros((1, 1, 1, 3)))
        return bool(flags[0])

    def _decode_in(self, dtype: torch.dtype, latents: torch.Tensor, decode: Callable[..., Any]) -> list[bytes | None]:
        # latents: (rows, channels, places high, wide); returns height x width x 3 bytes a row, None if not finite
        vae = self._pipe.vae
        try:
            if dtype != self._model.vae_dtype:
                vae.to(dtype)
            images = decode(self._family.unscale(vae, latents.to(dtype)), return_dict=False)[0]
        finally:
            if dtype != self._model.vae_dtype:
                vae.to(self._model.vae_dtype)
        images = images[:, :, 0] if images.dim() == 5 else images  # of a VAE for films: its first frame
        finite = images.isfinite().flatten(1).all(dim=1).tolist()
        # (rows, 3, height, width) in -1..1 -> (rows, height, width, 3) in 0..255
        pixels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().nan_to_num().to(torch.uint8)
        array = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [array[row].tobytes() if sound else None for row, sound in enumerate(finite)]
