"""What one model takes at one size on one kind of device: measured by a probe, or estimated from its files.

Pure, no torch: of weight files only the headers are read.
"""

from dataclasses import dataclass, replace

from batchgen.memory.streaming_costs import Groups

LATENT_PX = 8
# With so many times the memory or the images, it is worth measuring again.
_MUCH_MORE = 1.25

Points = tuple[tuple[float, float], ...]
"""(how much at once, what that takes: seconds or bytes), ascending."""
Pieces = tuple[tuple[float, Points], ...]
"""(pixels of an image or a tile, (how many at once, seconds of a call)), ascending."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of each component's weights as they lie on the device; `vae_value_bytes`: of one of the VAE's numbers."""

    text_bytes: int
    unet_bytes: int
    vae_bytes: int
    largest_text_layer_bytes: int
    largest_unet_layer_bytes: int
    unet_layers: int
    vae_value_bytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model takes beside its weights, and how long: for one size, dtype and kind of device.

    `pass_bytes`: (rows, bytes) of activations of the UNet, by the rows that it runs at once (guidance runs two for an
    image); `pass_s`: (rows, seconds) of one pass, its weights in place.
    `decode_bytes`: (pixels at once, bytes) of activations of the VAE; `decode_s`: of a call, by what is decoded: of the
    same pixels, attention takes longer in one large piece than in many small ones.
    `stream_groups`: those of the UNet under weight streaming.
    A series ends where more at once gains nothing. What else ended one is noted, since there another job may want more
    of it (`serves`). `cut_at_bytes`: the free memory, where that did; `short_rows`: the rows of the job's batch, where
    the job wanted no more at once; `short_images`: the job's images, which were too few for (more of) a probe.
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
    """Whether a probe for a job of batches of so many rows, with so much free memory, would find nothing new."""
    return (
        (figures.cut_at_bytes is None or free_bytes <= _MUCH_MORE * figures.cut_at_bytes)
        and (figures.short_rows is None or rows <= figures.short_rows)
        and (figures.short_images is None or images <= _MUCH_MORE * figures.short_images)
    )


def scaled(known: Figures, known_pixels: int, pixels: int, guess: Figures) -> Figures:
    """The figures of a size that was not measured, by those of a size that was. `guess`: its own, by the model's files.

    Activations and times go by pixels; what the VAE takes is known by pixels anyway. What attention takes beyond that
    is left to the margin of figures that are not measured.
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
    """What `amount` at once takes: between points by a line, beyond them in proportion."""
    first, last = points[0], points[-1]
    if amount <= first[0]:
        return first[1] * max(amount / first[0], 0.2)  # small calls wait for the host
    if amount >= last[0]:
        return last[1] * amount / last[0]
    above = next(place for place, point in enumerate(points) if point[0] >= amount)
    (low, low_s), (high, high_s) = points[above - 1], points[above]
    return low_s + (high_s - low_s) * (amount - low) / (high - low)


def call_s(pieces: Pieces, pixels: float, count: float) -> float:
    """Seconds to decode `count` pieces of so many pixels at once: in proportion to the next smaller piece measured."""
    measured, points = max([one for one in pieces if one[0] <= pixels] or pieces[:1])
    return at(points, count) * pixels / measured
