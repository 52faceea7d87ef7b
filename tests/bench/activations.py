"""What one pass of a full-size UNet takes, as diffusers computes it and with its activations shrunk.

python -m tests.bench.activations     one GPU, random weights
"""

import copy
import statistics

import torch
from diffusers import UNet2DConditionModel

from batchgen.machine.meters import Stopwatch
from batchgen.pipeline.levers.activations import shrink_activations
from tests.bench.full_configs import CONFIGS
from tests.bench.record import Record, gpu_name

MIB = 1 << 20
# Rows of width and height in pixels; guidance runs two for an image.
CASES = {
    "sd15": ((2, 512, 512), (8, 512, 512), (16, 512, 512), (32, 512, 512), (64, 512, 512), (1, 3840, 2224)),
    "sdxl": ((2, 1024, 1024), (8, 1024, 1024), (16, 1024, 1024), (32, 1024, 1024)),
}
LARGE = {("sd15", 64, 512), ("sdxl", 16, 1024), ("sd15", 1, 3840)}  # where the device, not the host, says how long
ROUNDS = 10


def given(unet, kind, rows, width, height):
    """The arguments of a pass, of noise: the same ones each time."""
    made = torch.Generator(unet.device).manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, device=unet.device, dtype=unet.dtype, generator=made)

    named = {"encoder_hidden_states": noise(rows, 77, unet.config.cross_attention_dim), "return_dict": False}
    if kind == "sdxl":
        named["added_cond_kwargs"] = {"text_embeds": noise(rows, 1280), "time_ids": noise(rows, 6)}
    return (noise(rows, 4, height // 8, width // 8), 500), named


def peak_bytes(call):
    """Beside what is allocated before, and the result."""
    call()  # workspaces of libraries stay
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    return torch.cuda.max_memory_allocated() - before, result


def seconds(calls):
    """The median of each, in turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, into in zip(calls, taken, strict=True):
            watch = Stopwatch()
            with watch:
                call()
            into.append(watch.seconds())
    return [statistics.median(each) for each in taken]


def measure(record, kind):
    """Both UNets of this kind, case by case; returns (time, bytes) of the shrunk over the plain one by case."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        plain = UNet2DConditionModel.from_config(CONFIGS[kind]["unet"])
    plain = plain.half().eval().to(memory_format=torch.channels_last)
    shrunk = copy.deepcopy(plain)
    shrink_activations(shrunk)
    found = {}
    for rows, width, height in CASES[kind]:
        positional, named = given(plain, kind, rows, width, height)
        calls = [lambda u=unet, p=positional, n=named: u(*p, **n)[0] for unet in (plain, shrunk)]
        (plain_bytes, one), (shrunk_bytes, other) = (peak_bytes(call) for call in calls)
        differ = ((one - other).abs().max() / one.abs().max()).item()
        del one, other
        plain_s, shrunk_s = seconds(calls)
        record.add(
            model=kind, rows=rows, width_px=width, height_px=height, plain_s=round(plain_s, 5),
            shrunk_s=round(shrunk_s, 5), plain_mib_a_row=round(plain_bytes / rows / MIB, 1),
            shrunk_mib_a_row=round(shrunk_bytes / rows / MIB, 1), largest_difference=differ,
        )  # fmt: skip
        found[kind, rows, width] = (shrunk_s / plain_s, shrunk_bytes / plain_bytes)
    return found


def main():
    record = Record("activations", gpu_name())
    with torch.inference_mode():
        found = measure(record, "sd15")
        torch.cuda.empty_cache()
        found |= measure(record, "sdxl")
    slowest = max(found[case][0] for case in LARGE)
    record.bar("seconds over diffusers', of a large pass, at most", round(slowest, 3), below=1.02)
    largest = max(share for _, share in found.values())
    record.bar("bytes over diffusers', at most", round(largest, 3), below=1)
    record.write()


if __name__ == "__main__":
    main()
