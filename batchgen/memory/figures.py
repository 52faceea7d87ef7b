"""What one model takes at one size on one kind of device: measured by a probe, or estimated from its files. Pure."""

from dataclasses import dataclass, replace

from batchgen.memory.streaming_costs import Groups

LATENT_PX = 8
# With this many times the memory or the images, it is worth measuring again.
_MUCH_MORE = 1.25

Points = tuple[tuple[float, float], ...]
"""Pairs, ascending: how much at once, and what that takes in seconds or bytes."""
Pieces = tuple[tuple[float, Points], ...]
"""Pairs, ascending: pixels of an image or a tile, and (how many at once, seconds of a call)."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of each part's weights on the device; `vae_value_bytes` are those of one number of the VAE.

    `unet` in the names of fields, which files on disk have too, is the denoiser, whatever it is.
    """

    text_bytes: int
    unet_bytes: int
    vae_bytes: int
    largest_text_layer_bytes: int
    largest_unet_layer_bytes: int
    unet_layers: int
    vae_value_bytes: int

    @property
    def parts_bytes(self) -> tuple[int, int, int]:
        """What the parts of each stage take: text encoders, denoiser, VAE."""
        return self.text_bytes, self.unet_bytes, self.vae_bytes


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model takes beside its weights, and how long, for one size, dtype and kind of device.

    `pass_bytes`: (rows, bytes) of the denoiser's activations, by the rows that it runs at once (guidance runs two rows
    for an image); `pass_s`: (rows, seconds) of one pass with its weights in place.
    `decode_bytes`: (pixels at once, bytes) of the VAE's activations; `decode_s`: seconds of a call, by the size of the
    piece, because attention takes longer in one large piece than in many small ones with the same pixels.
    `stream_groups`: the groups of the denoiser's layers under weight streaming.
    A series of measurements ends where more at once gains nothing. Any other end is noted, because another job may
    need more of the series (`serves`). `cut_at_bytes`: the free memory, if that ended it; `short_rows`: the rows of
    the job's batch, if the job needed no more at once; `short_images`: the job's images, if they were too few.
    """

    weights: Weights
    workspace_bytes: int
    encode_bytes: int
    pass_bytes: Points
    pass_s: Points
    decode_bytes: Points
    decode_s: Pieces
    copied_bytes_per_s: float
    stream_groups: Groups
    measured: bool
    cut_at_bytes: int | None = None
    short_rows: int | None = None
    short_images: int | None = None


def serves(figures: Figures, free_bytes: int, rows: int, images: int) -> bool:
    """Whether another probe would find nothing new, with this free memory, rows in a batch and images in the job."""
    return (
        (figures.cut_at_bytes is None or free_bytes <= _MUCH_MORE * figures.cut_at_bytes)
        and (figures.short_rows is None or rows <= figures.short_rows)
        and (figures.short_images is None or images <= _MUCH_MORE * figures.short_images)
    )


def scaled(known: Figures, known_pixels: int, pixels: int, guess: Figures) -> Figures:
    """The figures of a size that was not measured, from `known` ones of a size that was and from its own estimate.

    Activations and times are in proportion to pixels; for the VAE they are known by pixels anyway. What attention takes
    beyond that is left to the margin for figures that were not measured. `guess` is the estimate.
    """
    ratio = pixels / known_pixels
    return replace(
        known,
        pass_bytes=tuple((rows, taken * ratio) for rows, taken in known.pass_bytes),
        pass_s=tuple((rows, seconds * ratio) for rows, seconds in known.pass_s),
        stream_groups=guess.stream_groups,
        measured=False,
    )


def at(points: Points, amount: float) -> float:
    """What `amount` at once takes: on a line between two points, in proportion beyond them."""
    first, last = points[0], points[-1]
    if amount <= first[0]:
        return first[1] * max(amount / first[0], 0.2)  # small calls wait for the host
    if amount >= last[0]:
        return last[1] * amount / last[0]
    above = next(place for place, point in enumerate(points) if point[0] >= amount)
    (low, low_s), (high, high_s) = points[above - 1], points[above]
    return low_s + (high_s - low_s) * (amount - low) / (high - low)


def call_s(pieces: Pieces, pixels: float, count: float) -> float:
    """Seconds to decode `count` pieces of `pixels` at once, in proportion to the next smaller piece measured."""
    measured, points = max([one for one in pieces if one[0] <= pixels] or pieces[:1])
    return at(points, count) * pixels / measured
