"""What a policy costs: bytes on the device in each stage, and seconds for a batch. All functions are pure."""

import math
from dataclasses import dataclass

from batchgen.memory import streaming_costs
from batchgen.memory.figures import LATENT_PX, Figures, at, call_s
from batchgen.memory.placement_bytes import held_bytes
from batchgen.padding import padded_rows
from batchgen.placements import PLACEMENTS
from batchgen.policy import TILES_PX, Policy

# The seconds that hooks take for each layer on any machine (measured with SD 1.5 and SDXL).
_LEAF_S, _LAYER_S = 60e-6, 550e-6
# What a tiled decode takes for each pixel of the whole image. While it decodes, its tiles are kept, and they overlap.
# In the end, when nothing is decoded any more, it takes these bytes, by the bytes of a number: for the image in fp32
# twice beside it in fp16, or for the tiles, rows of tiles and the image.
_TILE_OVERLAP = 0.25
_KEPT_VALUES = 3 / (1 - _TILE_OVERLAP) ** 2
_ASSEMBLING_BYTES = {2: 30, 4: 46}
# How much memory a CUDA graph keeps, as a multiple of what its pass allocates: blocks are larger than what is put into
# them (measured with SD 1.5 on an H100: 1.7 with one and with two images).
_GRAPH_SHARE = 2
_LATENT_BYTES = 64  # for each place of a latent: latents, noise and what schedulers keep


@dataclass(frozen=True, slots=True)
class Task:
    """What decides how long a batch takes and what fits."""

    width: int
    height: int
    rows: int
    steps: int
    guided: bool

    @property
    def pixels(self) -> int:
        """The pixels of one image."""
        return self.width * self.height

    @property
    def tiles_px(self) -> tuple[int, ...]:
        """The tiles that an image may be decoded in, largest first: all that are smaller than the image."""
        return tuple(tile_px for tile_px in TILES_PX if tile_px < max(self.width, self.height))

    def piece(self, tile_px: int) -> tuple[int, int]:
        """Width and height in pixels of what is decoded at once: a tile, or the whole image if `tile_px` is 0."""
        return (min(tile_px, self.width), min(tile_px, self.height)) if tile_px else (self.width, self.height)


def stage_bytes(figures: Figures, policy: Policy, task: Task) -> dict[str, int]:
    """The most bytes that each stage allocates on the device."""
    encoding, denoising, decoding = held_bytes(figures.weights, policy.placement, policy.stream_buffers)
    latents = task.rows * task.pixels // LATENT_PX**2 * _LATENT_BYTES
    kept = figures.workspace_bytes + latents + _graph_bytes(figures, policy, task)
    return {
        "encode": encoding + kept + figures.encode_bytes,
        "denoise": denoising + kept + int(at(figures.pass_bytes, _rows_at_once(policy, task))),
        "decode": decoding + kept + _decode_bytes(figures, policy, task),
    }


def peak_bytes(figures: Figures, policy: Policy, task: Task) -> int:
    """The most bytes that a batch allocates on the device at once."""
    return max(stage_bytes(figures, policy, task).values())


def batch_s(figures: Figures, policy: Policy, task: Task) -> float:
    """Seconds for a batch: denoising, decoding, and copying weights between the stages."""
    passes = 2 if task.guided and policy.guidance_split else 1
    each = 2 if task.guided and passes == 1 else 1
    whole, rest = divmod(task.rows, policy.micro_batch)
    step_s = whole * passes * _pass_s(figures, policy, each * policy.micro_batch)
    if rest:
        step_s += passes * _pass_s(figures, policy, each * padded_rows(rest, policy.micro_batch))
    return task.steps * step_s + _decode_s(figures, policy, task) + _moves_s(figures, policy.placement)


def _pass_s(figures: Figures, policy: Policy, rows: int) -> float:
    # Seconds of one pass of the denoiser. Copying and computing overlap, so only the longer of the two counts.
    compute_s = at(figures.pass_s, rows)
    copy_s = figures.weights.unet_bytes / figures.copied_bytes_per_s
    layers = figures.weights.unet_layers
    placement = policy.placement
    if placement == "weight_streaming":
        return streaming_costs.pass_s(
            figures.stream_groups, compute_s, figures.copied_bytes_per_s, policy.stream_buffers
        )
    if placement == "group_offload_leaf":
        return max(compute_s, copy_s) + layers * _LEAF_S
    if placement == "group_offload_block":
        return compute_s + 2 * copy_s
    if placement == "sequential_offload":
        return compute_s + copy_s + layers * _LAYER_S
    return compute_s


def _decode_bytes(figures: Figures, policy: Policy, task: Task) -> int:
    # Bytes that decoding takes beside the VAE's weights
    chunk, tile_pixels = policy.decode_chunk, _tile_pixels(policy, task)
    decoding = at(figures.decode_bytes, tile_pixels * chunk)
    if tile_pixels == task.pixels:
        return int(decoding)
    value_bytes, image_pixels = figures.weights.vae_value_bytes, task.pixels * chunk
    return int(max(decoding + image_pixels * _KEPT_VALUES * value_bytes, image_pixels * _ASSEMBLING_BYTES[value_bytes]))


def _decode_s(figures: Figures, policy: Policy, task: Task) -> float:
    calls = math.ceil(task.rows / policy.decode_chunk) * _tiles(policy, task)
    return calls * call_s(figures.decode_s, _tile_pixels(policy, task), policy.decode_chunk)


def _tiles(policy: Policy, task: Task) -> float:
    # The pixels that are decoded for an image, counted in tiles; 1 without tiling. Tiles overlap by a quarter, as in
    # diffusers, and the last ones are smaller.
    if _tile_pixels(policy, task) == task.pixels:
        return 1
    return _pieces(task.width, policy.tile_px) * _pieces(task.height, policy.tile_px)


def _pieces(edge: int, tile_px: int) -> float:
    # What is decoded along an edge, counted in widths of a tile
    stride = int(tile_px * (1 - _TILE_OVERLAP))
    return sum(min(tile_px, edge - start) for start in range(0, edge, stride)) / min(tile_px, edge)


def _moves_s(figures: Figures, placement: str) -> float:
    # Copying between the stages. What hooks bring in for the denoiser counts in its passes.
    held, (text, denoiser, vae) = PLACEMENTS[placement], figures.weights.parts_bytes
    moved = text if held.encode != "resident" else 0
    moved += denoiser if held.denoise == "staged" else 0
    moved += vae if held.decode != "resident" else 0
    return moved / figures.copied_bytes_per_s


def _graph_bytes(figures: Figures, policy: Policy, task: Task) -> int:
    # What CUDA graphs keep in all stages, also beside a pass of fewer rows, which is computed eagerly: the blocks that
    # the memory of a pass of the whole micro-batch is cut from. All graphs work in the same memory, and only those of
    # one size are kept.
    if policy.compile != "graphs":
        return 0
    return int(_GRAPH_SHARE * at(figures.pass_bytes, _rows_of_pass(policy, task, policy.micro_batch)))


def _tile_pixels(policy: Policy, task: Task) -> int:
    return math.prod(task.piece(policy.tile_px))


def _rows_at_once(policy: Policy, task: Task) -> int:
    return _rows_of_pass(policy, task, min(policy.micro_batch, task.rows))


def _rows_of_pass(policy: Policy, task: Task, prompts: int) -> int:
    return prompts * 2 if task.guided and not policy.guidance_split else prompts
