"""How long one pass of a UNet takes under each speed lever, where its time goes, and how long compiling takes.

python -m tests.bench.passes MODELS KIND [--only NAME ...] [--rows N] [--small]

MODELS/sd15, MODELS/sdxl: made by full_size.py. --rows: of a pass or of a decoder's call, in the place of those that
stand here. Results are kept in results/passes.rows.jsonl as they are measured. Times are the device's, medians of 10
calls in a row.
"""

import argparse
import json
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from batchgen.pipeline.levers.activations import shrink_activations
from batchgen.pipeline.levers.graphs import Recorder
from batchgen.pipeline.levers.norms import norms_by_channels
from batchgen.pipeline.levers.prefix import shared, swapped
from batchgen.pipeline.levers.upsampling import by_phases_of
from tests.bench.record import RESULTS, commit, device, gpu_name

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
CALLS = 10
# Rows of a pass, latent's edge, width of the text, TFLOP of a row (counted from the layers' shapes).
SIZES = {"sd15": (64, 64, 768, 0.803), "sdxl": (16, 128, 2048, 6.76)}
SAFE = {"deterministic": True}
AS_MM = SAFE | {"conv_1x1_as_mm": True}
TUNED = {"max_autotune_gemm": True, "max_autotune_gemm_backends": "ATEN,TRITON", "max_autotune_conv_backends": "ATEN"}


@dataclass(frozen=True)
class Lever:
    """How a pass is computed. `inductor`: its settings, None for eager; `shared`: once what both halves have alike.

    `norms`: group norms by their channels; `phases`: convolved before it is enlarged; `graph`: its kernels are recorded
    once and launched together (a CUDA graph).
    """

    nhwc: bool = False
    inductor: dict[str, Any] | None = None
    qkv: bool = False
    benchmark: bool = False
    shrunk: bool = False
    shared: bool = False
    graph: bool = False
    norms: bool = False
    phases: bool = False

    def faster(self, model):
        """The modules of a model that have another forward."""
        layers = by_phases_of(model) if self.phases else {}
        return layers | norms_by_channels(model) if self.norms else layers


LEVERS = {
    "eager": Lever(),
    "eager_shrunk": Lever(shrunk=True),
    "eager_shrunk_shared": Lever(shrunk=True, shared=True),
    "eager_shrunk_nhwc": Lever(nhwc=True, shrunk=True),
    "compiled": Lever(inductor={}),
    "compiled_nhwc": Lever(nhwc=True, inductor={}),
    "compiled_safe": Lever(inductor=SAFE),
    "compiled_safe_shared": Lever(inductor=SAFE, shared=True),
    "compiled_safe_graph": Lever(inductor=SAFE, graph=True),
    "compiled_safe_shared_graph": Lever(inductor=SAFE, shared=True, graph=True),
    "eager_shrunk_graph": Lever(shrunk=True, graph=True),
    "compiled_safe_norms": Lever(inductor=SAFE, norms=True),
    "compiled_safe_norms_shared": Lever(inductor=SAFE, norms=True, shared=True),
    "compiled_safe_norms_shared_graph": Lever(inductor=SAFE, norms=True, shared=True, graph=True),
    "compiled_safe_phases": Lever(inductor=SAFE, norms=True, shared=True, phases=True),
    "compiled_safe_phases_qkv": Lever(inductor=SAFE, norms=True, shared=True, phases=True, qkv=True),
    "compiled_safe_nhwc": Lever(nhwc=True, inductor=SAFE),
    "compiled_safe_nhwc_mm": Lever(nhwc=True, inductor=AS_MM),
    "compiled_safe_nhwc_mm_qkv": Lever(nhwc=True, inductor=AS_MM, qkv=True),
    "compiled_safe_nhwc_mm_benchmark": Lever(nhwc=True, inductor=AS_MM, benchmark=True),
    "compiled_tuned_nhwc_mm": Lever(nhwc=True, inductor=AS_MM | {"deterministic": False} | TUNED),
}
DECODERS = {
    "decode": Lever(),
    "decode_nhwc": Lever(nhwc=True),
    "decode_compiled": Lever(inductor=SAFE),
    "decode_compiled_nhwc": Lever(nhwc=True, inductor=SAFE),
    "decode_compiled_norms": Lever(inductor=SAFE, norms=True),
    "decode_compiled_phases": Lever(inductor=SAFE, norms=True, phases=True),
}
CHUNKS = (1, 4, 8, 16)
COMPILED_CHUNKS = (8,)
LONGEST = 12
# Classes of kernels, by a part of their names; the first that fits.
CLASSES = (
    ("triton_", "triton"), ("cudnn_generated_fort_native_sdpa", "attention"), ("flash", "attention"),
    ("fmha", "attention"), ("Conv", "convolution"), ("conv", "convolution"), ("cudnn", "convolution"),
    ("implicit", "convolution"), ("xmma_fprop", "convolution"), ("gemm", "product"), ("nvjet", "product"),
    ("cutlass", "product"), ("Memcpy", "copy"), ("copy", "copy"), ("nchw", "layout"), ("nhwc", "layout"),
)  # fmt: skip


def seconds_of(call):
    """Median seconds of a call, the device's."""
    if not CUDA:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    call()
    taken = []
    for _ in range(CALLS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1000)
    return sorted(taken)[CALLS // 2]


def shares(call):
    """Milliseconds of a call by class of kernel, and the longest of those of no class."""
    if not CUDA:
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    found: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next((kind for part, kind in CLASSES if part in event.key), "other")
        found[kind] += event.self_device_time_total / 1000
        names[event.key[:90]] += event.self_device_time_total / 1000
    longest = [[name, round(ms, 2)] for name, ms in names.most_common(LONGEST)]
    return {"ms_by_class": {kind: round(ms, 2) for kind, ms in found.most_common()}, "longest": longest}


@contextmanager
def compiling(settings):
    """Within it, Inductor has these settings."""
    import torch._inductor.config as config

    torch._dynamo.reset()
    with config.patch(settings) if settings else nullcontext():
        yield


def unet_inputs(kind, rows, small):
    """What the pipeline gives the UNet: latents, a time step, texts, and SDXL's size conditions."""
    _, edge, width, _ = (2, 8, 32 if kind == "sd15" else 64, 0) if small else SIZES[kind]
    dtype = torch.float16 if CUDA else torch.float32
    given: dict = {"encoder_hidden_states": torch.randn(rows, 77, width, device=DEVICE, dtype=dtype)}
    if kind == "sdxl":
        pooled = torch.randn(rows, 32 if small else 1280, device=DEVICE, dtype=dtype)
        sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]] * rows, device=DEVICE, dtype=dtype)
        given["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    return torch.randn(rows, 4, edge, edge, device=DEVICE, dtype=dtype), torch.tensor(500.0, device=DEVICE), given


def one_pass(models, kind, rows, small, name):
    """The figures of one lever."""
    lever, rows = LEVERS[name], rows or (2 if small else SIZES[kind][0])
    torch.backends.cudnn.benchmark = lever.benchmark
    dtype = torch.float16 if CUDA else torch.float32
    unet = UNet2DConditionModel.from_pretrained(models / kind / "unet", torch_dtype=dtype).to(DEVICE).eval()
    if lever.shrunk:
        shrink_activations(unet)
    if lever.qkv:
        unet.fuse_qkv_projections()
    if lever.nhwc:
        unet.to(memory_format=torch.channels_last)
    sample, step, given = unet_inputs(kind, rows, small)
    other = lever.faster(unet)
    other |= shared(unet, other) if lever.shared else {}
    run = unet.forward if lever.inductor is None else torch.compile(unet.forward, dynamic=False)

    def call():
        with swapped(other):
            return run(sample, step, return_dict=False, **given)[0]

    with torch.inference_mode(), compiling(lever.inductor):
        start = time.perf_counter()
        call()
        if CUDA:
            torch.cuda.synchronize()
        first_s = time.perf_counter() - start
        call = Recorder()(call)[0] if lever.graph else call
        seconds = seconds_of(call)
        split = shares(call)
    tflop = 0 if small else rows * SIZES[kind][3]
    return {
        "rows": rows,
        "first_s": round(first_s, 1),
        "ms": round(1000 * seconds, 2),
        "tflop_per_s": round(tflop / seconds, 1),
        **split,
    }


def one_decoder(models, kind, rows, small, name):
    """Milliseconds an image by how many are decoded at once. In bf16 for SDXL, whose VAE overflows in fp16."""
    lever = DECODERS[name]
    torch.backends.cudnn.benchmark = lever.benchmark
    dtype = (torch.bfloat16 if kind == "sdxl" else torch.float16) if CUDA else torch.float32
    vae = AutoencoderKL.from_pretrained(models / kind / "vae", torch_dtype=dtype).to(DEVICE).eval()
    if lever.nhwc:
        vae.to(memory_format=torch.channels_last)
    edge = 8 if small else SIZES[kind][1]
    found = {}
    with swapped(lever.faster(vae)), torch.inference_mode(), compiling(lever.inductor):
        decode = vae.decode if lever.inductor is None else torch.compile(vae.decode, dynamic=False)
        for chunk in [rows] if rows else CHUNKS if lever.inductor is None else COMPILED_CHUNKS:
            latents = torch.randn(chunk, 4, edge, edge, device=DEVICE, dtype=dtype)
            start = time.perf_counter()
            decode(latents, return_dict=False)
            found[f"first_s_{chunk}"] = round(time.perf_counter() - start, 1)
            taken = seconds_of(partial(decode, latents, return_dict=False))
            found[f"ms_an_image_{chunk}"] = round(1000 * taken / chunk, 2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("kind", choices=SIZES)
    parser.add_argument("--only", nargs="*", choices=[*LEVERS, *DECODERS], default=[*LEVERS, *DECODERS])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    for name in options.only:
        measure = one_pass if name in LEVERS else one_decoder
        try:
            found = measure(options.models, options.kind, options.rows, options.small, name)
        except Exception as error:  # a lever that does not run here is a figure too
            found = {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
        row = {"kind": options.kind, "lever": name, **found, "device": gpu_name() or device(), "commit": commit()}
        print(json.dumps(row), flush=True)
        if not options.small:
            with (RESULTS / "passes.rows.jsonl").open("a") as file:
                print(json.dumps(row), file=file)
        if CUDA:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
