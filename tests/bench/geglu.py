"""GEGLU in the epilogue of its product, by a Triton kernel, beside the same by Inductor.

python -m tests.bench.geglu [--check]     --check: only that it is right, also by Triton's interpreter on a CPU

The value and the gate of a tile are accumulated beside each other in fp32, so that neither is written to memory. A row
for each configuration that is tried, and one for what Inductor makes of the same two lines in its deterministic mode.
"""

import argparse
import json
import os

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# Rows x width of what the feed-forward layers of 64 rows of SD 1.5 and of 16 rows of SDXL are given.
SIZES = ((262144, 320), (65536, 640), (16384, 1280), (4096, 1280), (65536, 640), (16384, 1280))
# Tile of rows, columns of the result and depth; warps; stages; by TMA.
TRIED = (
    (128, 128, 64, 8, 3, False), (128, 128, 64, 8, 4, False), (128, 128, 32, 8, 4, False), (256, 64, 64, 8, 3, False),
    (128, 64, 64, 4, 4, False), (128, 128, 64, 8, 3, True), (128, 128, 64, 8, 4, True), (256, 64, 64, 8, 4, True),
    (128, 64, 64, 4, 5, True), (128, 64, 128, 4, 3, True),
)  # fmt: skip


@triton.jit
def _places(rows, width, TILE_M: tl.constexpr, TILE_N: tl.constexpr, GROUP: tl.constexpr):
    # Which tile a program makes: tiles of GROUP strips of rows one after the other, so that weights stay in the cache
    here = tl.program_id(0)
    strips, columns = tl.cdiv(rows, TILE_M), tl.cdiv(width, TILE_N)
    first = here // (GROUP * columns) * GROUP
    deep = min(strips - first, GROUP)
    within = here % (GROUP * columns)
    return first + within % deep, within // deep


@triton.jit
def _gated(value, gate):
    return value * 0.5 * gate * (1.0 + tl.math.erf(gate * 0.7071067811865476))


@triton.jit
def _by_pointers(
    x, weight, bias, made, rows, width, DEPTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    strip, column = _places(rows, width, TILE_M, TILE_N, GROUP)
    row = strip * TILE_M + tl.arange(0, TILE_M)
    place = column * TILE_N + tl.arange(0, TILE_N)
    deep = tl.arange(0, TILE_K)
    given = x + row[:, None].to(tl.int64) * DEPTH + deep[None, :]
    of_value = weight + place[None, :] * DEPTH + deep[:, None]
    of_gate = of_value + width * DEPTH
    value = tl.zeros((TILE_M, TILE_N), tl.float32)
    gate = tl.zeros((TILE_M, TILE_N), tl.float32)
    for start in range(0, DEPTH, TILE_K):
        part = tl.load(given + start)
        value = tl.dot(part, tl.load(of_value + start), value)
        gate = tl.dot(part, tl.load(of_gate + start), gate)
    value += tl.load(bias + place)[None, :].to(tl.float32)
    gate += tl.load(bias + width + place)[None, :].to(tl.float32)
    tl.store(made + row[:, None].to(tl.int64) * width + place[None, :], _gated(value, gate).to(made.dtype.element_ty))


@triton.jit
def _by_tma(
    x, weight, bias, made, rows, width, DEPTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    strip, column = _places(rows, width, TILE_M, TILE_N, GROUP)
    given = tl.make_tensor_descriptor(x, [rows, DEPTH], [DEPTH, 1], [TILE_M, TILE_K])
    weights = tl.make_tensor_descriptor(weight, [2 * width, DEPTH], [DEPTH, 1], [TILE_N, TILE_K])
    to = tl.make_tensor_descriptor(made, [rows, width], [width, 1], [TILE_M, TILE_N])
    value = tl.zeros((TILE_M, TILE_N), tl.float32)
    gate = tl.zeros((TILE_M, TILE_N), tl.float32)
    for start in range(0, DEPTH, TILE_K):
        part = given.load([strip * TILE_M, start])
        value = tl.dot(part, weights.load([column * TILE_N, start]).T, value)
        gate = tl.dot(part, weights.load([width + column * TILE_N, start]).T, gate)
    place = column * TILE_N + tl.arange(0, TILE_N)
    value += tl.load(bias + place)[None, :].to(tl.float32)
    gate += tl.load(bias + width + place)[None, :].to(tl.float32)
    to.store([strip * TILE_M, column * TILE_N], _gated(value, gate).to(made.dtype.element_ty))


def geglu(x, weight, bias, tried=TRIED[0], group=8):
    """value * gelu(gate) of x @ weight.T + bias, (rows, width), of x (rows, depth) and weight (2 x width, depth)."""
    tile_m, tile_n, tile_k, warps, stages, tma = tried
    rows, depth = x.shape
    width = len(weight) // 2
    made = x.new_empty(rows, width)
    grid = (triton.cdiv(rows, tile_m) * triton.cdiv(width, tile_n),)
    kernel = _by_tma if tma else _by_pointers
    kernel[grid](
        x, weight, bias, made, rows, width, depth, tile_m, tile_n, tile_k, group, num_warps=warps, num_stages=stages
    )
    return made


def plain(x, weight, bias):
    """The same by torch, as diffusers computes it."""
    value, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def given(rows, depth, dtype):
    torch.manual_seed(rows + depth)
    weight = torch.randn(8 * depth, depth, device=DEVICE, dtype=dtype) / depth**0.5
    return (
        torch.randn(rows, depth, device=DEVICE, dtype=dtype),
        weight,
        torch.randn(8 * depth, device=DEVICE, dtype=dtype),
    )


def seconds_of(call, calls=20):
    for _ in range(3):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if CUDA:
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, device="cuda", dtype=torch.int8))
    dtype = torch.float16 if CUDA else torch.float32
    sizes = ((256, 128),) if options.check else SIZES
    for rows, depth in sizes:
        x, weight, bias = given(rows, depth, dtype)
        right = plain(x.float(), weight.float(), bias.float())
        if CUDA:
            fast = torch.compile(plain, dynamic=False, options={"deterministic": True})
            tflop = 2 * rows * depth * 8 * depth / 1e12
            taken_s = seconds_of(lambda: fast(x, weight, bias))  # noqa: B023
            print(
                json.dumps(
                    {
                        "rows": rows,
                        "depth": depth,
                        "by": "inductor",
                        "ms": taken_s * 1000,
                        "tflop_per_s": tflop / taken_s,
                    }
                ),
                flush=True,
            )
            alone_s = seconds_of(lambda: F.linear(x, weight, bias))  # noqa: B023
            print(
                json.dumps(
                    {
                        "rows": rows,
                        "depth": depth,
                        "by": "the product alone",
                        "ms": alone_s * 1000,
                        "tflop_per_s": tflop / alone_s,
                    }
                ),
                flush=True,
            )
        for tried in TRIED:
            row = {"rows": rows, "depth": depth, "by": tried}
            try:
                made = geglu(x, weight, bias, tried)
                row["error"] = float((made.float() - right).abs().max() / right.abs().max())
                if CUDA:
                    taken_s = seconds_of(lambda: geglu(x, weight, bias, tried))  # noqa: B023
                    row |= {"ms": taken_s * 1000, "tflop_per_s": tflop / taken_s}
            except Exception as error:  # a tile that does not fit is a figure, too
                row["failed"] = f"{type(error).__name__}: {str(error)[:150]}"
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
