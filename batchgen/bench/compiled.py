"""A fair script by hand: compiled denoiser and VAE, channels_last, decoding eight at once, PNGs by threads."""

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from batchgen.bench.task import Load, Task
from batchgen.bench.timing import Taken, timed

DECODED_AT_ONCE, THREADS = 8, 8


def batch(load: Load, task: Task) -> Taken:
    """Make batches. What is written is written while the next one is made, so a call takes a batch's steady time."""
    pipe = load("half")
    _compile(pipe)
    pool = ThreadPoolExecutor(THREADS)
    pending: list[Future[None]] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():

        def work() -> None:
            images = task.call(pipe, task.rows, output_type="pt").images  # (rows, 3, height, width) from 0 to 1
            pixels = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            for one in pending:
                one.result()
            pending[:] = [pool.submit(_save, one, f"{folder}/{place}.png") for place, one in enumerate(pixels)]

        taken = timed(work, task.batches)
        for one in pending:
            one.result()
    pool.shutdown()
    return taken


def _compile(pipe: Any) -> None:
    """Compile a UNet whole, and of a transformer the blocks that repeat, where diffusers names them."""
    vae, unet = pipe.vae, getattr(pipe, "unet", None)
    if vae.dtype == torch.float16 and vae.config.get("force_upcast") and hasattr(pipe, "text_encoder_2"):
        vae.to(torch.bfloat16)  # SDXL's overflows in fp16, and the pipeline would take fp32
    if unet is not None:
        for part in (unet, vae):
            part.to(memory_format=torch.channels_last)
        pipe.unet = torch.compile(unet)
    elif getattr(pipe.transformer, "_repeated_blocks", None):
        pipe.transformer.compile_repeated_blocks()
    else:
        pipe.transformer.compile()
    vae.decode = _in_pieces(torch.compile(vae.decode), vae.dtype)


def _in_pieces(decode: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def decoded(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        pieces = (decode(one.to(dtype), return_dict=False)[0] for one in torch.split(latents, DECODED_AT_ONCE))
        return (torch.cat([one.float() for one in pieces]),)

    return decoded


def _save(pixels: Any, path: str) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, compress_level=1, compress_type=3)
