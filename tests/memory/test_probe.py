"""The probe, on a device that is simulated: what it finds, and that it stays within memory. No torch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from batchgen.errors import MemoryNeededError
from batchgen.memory import probe as module
from batchgen.memory.costs import Task
from batchgen.memory.figures import Figures, Weights
from batchgen.memory.placement_bytes import held_bytes
from batchgen.memory.probe import PROBED_UNDER, probe, probed_placement
from batchgen.memory.worth import SHARE, STEPS, image_s
from batchgen.policy import Policy
from tests.builders import POLICY
from tests.memory.cards import GIB, MIB, sd15_512

TASK = Task(512, 512, 32, 30, guided=True)

TRUE = sd15_512(teraflops=40)

ROW_BYTES, PIXEL_BYTES = TRUE.pass_bytes[0][1], TRUE.decode_bytes[0][1]

CALL_S, PIXEL_S = 2e-4, 1e-8

GUESS = replace(TRUE, pass_bytes=((1, 2 * ROW_BYTES),), decode_bytes=((1, 0.5 * PIXEL_BYTES),), measured=False)


class Clock:
    """In place of the device's time: what ran adds to it."""

    now_s = 0.0


class Watch:
    """A stopwatch of that clock."""

    def __enter__(self) -> None:
        self._began_s = Clock.now_s

    def __exit__(self, *_: object) -> None:
        self._took_s = Clock.now_s - self._began_s

    def seconds(self) -> float:
        return self._took_s


@dataclass
class Device:
    """Engine and gauge at once: takes what TRUE says, and refuses more than `size_bytes`."""

    size_bytes: float
    weights: Weights = TRUE.weights
    neighbour_bytes: float = 0.0
    slowness: float = 1.0
    in_one_call: bool = True  # of the denoiser: whether the two passes of guidance are halves of it

    def __post_init__(self) -> None:
        self.allocated = self.peak = 0.0
        self.refused = self.recovered = self.collected = 0
        self.placement = ""
        self.largest = 0
        self.pass_s = dict(TRUE.pass_s)
        self._watches: list[Watch] | None = None

    def free_bytes(self) -> int:
        return int(self.size_bytes - self.neighbour_bytes)

    def begin(self) -> int:
        self.peak = self.allocated
        return int(self.allocated)

    def peak_bytes(self) -> int:
        return int(self.peak)

    def copied_bytes_per_s(self) -> float:
        return 7e9

    def flop_per_s(self, dtype: str) -> float | None:
        return None

    def whole_bytes(self) -> int:
        return int(self.size_bytes)

    def prepare(self, policy: Policy) -> tuple[Policy, None]:
        changed, self.placement = policy.placement != self.placement, policy.placement
        if policy.placement == "resident":
            self._hold(held_bytes(self.weights, "resident")[0])
        elif changed:
            self.allocated = 0.0
        return policy, None

    def encode(self, prompts: list[Any]) -> str:
        self._hold(held_bytes(self.weights, self.placement)[0])
        self._take(30 * MIB)
        return "texts"

    def denoise(self, texts: Any, prompts: list[Any], policy: Policy) -> list[int]:
        assert texts == "texts"
        rows = len(prompts) * (1 if policy.guidance_split else 2)
        self._hold(held_bytes(self.weights, self.placement)[1])
        self.largest = max(self.largest, rows)
        for _ in range(prompts[0].steps):
            self._take(rows * ROW_BYTES)
            passes = 2 if policy.guidance_split else 1
            for _ in range(1 if self.in_one_call else passes):
                watch = Watch()
                with watch:
                    Clock.now_s += self.slowness * self.pass_s[rows] * (passes if self.in_one_call else 1)
                if self._watches is not None:
                    self._watches.append(watch)
        return [TASK.pixels] * len(prompts)

    def crop(self, latent: int, width_px: int, height_px: int) -> int:
        assert latent == TASK.pixels
        return width_px * height_px

    def decode(self, latents: list[int], policy: Policy) -> list[str]:
        self._hold(held_bytes(self.weights, self.placement)[2])
        assert not policy.tile_px
        self._take(sum(latents) * PIXEL_BYTES)
        Clock.now_s += CALL_S + self.slowness * sum(latents) * PIXEL_S
        return ["image"] * len(latents)

    @contextmanager
    def passes(self) -> Iterator[list[Watch]]:
        self._watches = []
        yield self._watches
        self._watches = None

    def warm_up(self, prompts: Any, policy: Policy) -> None:
        raise NotImplementedError

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def collect(self) -> None:
        self.collected += 1

    def recover(self) -> None:
        self.recovered += 1
        self.allocated = 0.0

    def _hold(self, weight_bytes: float) -> None:
        self.allocated = 0.0
        self._take(weight_bytes)
        self.allocated = weight_bytes

    def _take(self, more_bytes: float) -> None:
        if self.allocated + more_bytes > self.size_bytes - self.neighbour_bytes:
            self.refused += 1
            raise MemoryError
        self.peak = max(self.peak, self.allocated + more_bytes)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Stopwatch", Watch)


def found(
    device: Device,
    guess: Figures = GUESS,
    placement: str | None = None,
    task: Task = TASK,
    images: int = 100_000,
    policy: Policy = POLICY,
    may_stream: bool = True,
) -> Figures:
    under = placement or probed_placement(guess, task, policy, device.free_bytes())
    engine: Any = device
    return probe(engine, engine, guess, task, policy, under, images, may_stream)


def right_bytes(figures: Figures) -> None:
    for rows, taken_bytes in figures.pass_bytes:
        assert taken_bytes == pytest.approx(rows * ROW_BYTES, rel=0.01)
    for pixels, taken_bytes in figures.decode_bytes:
        assert taken_bytes == pytest.approx(pixels * PIXEL_BYTES, rel=0.01)


@pytest.mark.parametrize("size_gib", [80, 12, 6, 4, 2.5, 1.3])
def test_it_finds_what_the_device_takes_and_does_not_run_out_of_memory(size_gib: float) -> None:
    device = Device(size_gib * GIB)
    figures = found(device)
    assert (device.refused, device.collected) == (0, 1)
    assert figures.measured
    right_bytes(figures)
    assert figures.copied_bytes_per_s == 7e9
    for rows, seconds in figures.pass_s:
        assert seconds == pytest.approx(dict(TRUE.pass_s)[int(rows)])


@pytest.mark.parametrize("in_one_call", [True, False], ids=["divided", "one call after the other"])
def test_where_the_two_passes_follow_each_other_rows_are_those_of_one_pass(in_one_call: bool) -> None:
    device = Device(80 * GIB, in_one_call=in_one_call)
    figures = found(device, policy=replace(POLICY, guidance_split=True))
    right_bytes(figures)
    assert [rows for rows, _ in figures.pass_bytes][:3] == [1, 2, 4] and device.largest <= 32
    for rows, seconds in figures.pass_s:
        assert seconds == pytest.approx(dict(TRUE.pass_s)[int(rows)])


def test_decoding_is_measured_by_piece_and_by_how_many_there_are_at_once() -> None:
    for size_gib, largest in ((80, 512), (1.3, 512), (0.5, 256)):
        figures = found(Device(size_gib * GIB))
        pieces = [pixels for pixels, _ in figures.decode_s]
        assert pieces == [edge**2 for edge in (128, 256, 512) if edge <= largest]
        for pixels, series in figures.decode_s:
            for count, seconds in series:
                assert seconds == pytest.approx(CALL_S + count * pixels * PIXEL_S)
    # A call takes some time of its own: of small pieces, more at once are worth it.
    calls = dict(found(Device(80 * GIB)).decode_s)
    assert len(calls[128**2]) > len(calls[512**2])


def test_it_takes_less_than_a_minute_on_a_slow_card() -> None:
    device = Device(6 * GIB, slowness=20)  # 2 TFLOPS
    began_s = Clock.now_s
    figures = found(device)
    assert Clock.now_s - began_s < 60
    assert figures.pass_s[-1][0] <= 4


def test_series_end_when_more_at_once_gains_nothing() -> None:
    device = Device(80 * GIB)
    found(device)
    assert device.largest < 64  # this card is busy with a few rows


@pytest.mark.parametrize(
    ("size_gib", "placement"), [(80, "resident"), (3, "resident"), (2.2, "model_offload"), (1, "weight_streaming")]
)
def test_it_runs_with_as_much_in_place_as_fits(size_gib: float, placement: str) -> None:
    assert probed_placement(TRUE, TASK, POLICY, int(size_gib * GIB)) == placement
    assert placement in PROBED_UNDER


def test_where_weights_leave_no_room_streaming_shows_what_more_rows_would_gain() -> None:
    # In place, two rows fit beside the UNet's weights; with them streamed, sixteen.
    figures = found(Device(2.2 * GIB), placement="model_offload")
    assert [rows for rows, _ in figures.pass_s] == [1, 2, 4, 8, 16]
    assert figures.cut_at_bytes  # and with more memory it is worth another look


def test_where_the_host_cannot_hold_all_weights_nothing_is_streamed() -> None:
    device = Device(2.2 * GIB)
    figures = found(device, placement="model_offload", may_stream=False)
    assert [rows for rows, _ in figures.pass_s][-1] < 16 and figures.cut_at_bytes
    assert device.refused == 0


def test_a_guess_that_is_far_too_low_ends_series_at_what_was_refused() -> None:
    low = replace(GUESS, pass_bytes=((1, 1.0),), decode_bytes=((1, 0.01),))
    device = Device(2.0 * GIB)
    figures = found(device, low, "model_offload")
    right_bytes(figures)


def test_a_neighbour_that_grows_ends_the_series_and_not_the_probe() -> None:
    device = Device(12 * GIB)
    denoise = device.denoise

    def crowded(texts: Any, prompts: list[Any], policy: Policy) -> list[int]:
        if len(prompts) == 4:
            device.neighbour_bytes = 9.6 * GIB
        return denoise(texts, prompts, policy)

    device.denoise = crowded  # type: ignore[method-assign]
    figures = found(device)
    assert device.recovered == 1  # and it goes on with the weights streamed
    assert figures.cut_at_bytes
    right_bytes(figures)


@pytest.mark.parametrize(("size_gib", "stage"), [(0.2, "load"), (2.04, "denoise")])
def test_what_does_not_fit_at_all_is_said(size_gib: float, stage: str) -> None:
    with pytest.raises(MemoryNeededError, match=f"not even one image at a time fits .{stage}.*free some"):
        found(Device(size_gib * GIB), placement="resident")


def test_what_streaming_leaves_too_little_for_may_run_layer_by_layer() -> None:
    with pytest.raises(MemoryNeededError, match="denoise"):
        found(Device(0.25 * GIB), placement="weight_streaming")
    assert [rows for rows, _ in found(Device(0.25 * GIB), placement="sequential_offload").pass_s] == [1, 2]


def test_other_errors_are_not_taken_for_refusals() -> None:
    device = Device(80 * GIB)
    device.decode = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        found(device)


def test_the_probe_takes_no_time_of_its_own() -> None:
    started = time.perf_counter()
    found(Device(80 * GIB))
    assert time.perf_counter() - started < 0.5


def test_figures_know_what_ended_their_series() -> None:
    by_gain = found(Device(80 * GIB))
    assert (by_gain.cut_at_bytes, by_gain.short_rows, by_gain.short_images) == (None, None, None)
    by_memory = found(Device(2.2 * GIB))
    assert by_memory.cut_at_bytes and by_memory.short_rows is None
    by_rows = found(Device(80 * GIB), task=replace(TASK, rows=1))
    assert (by_rows.cut_at_bytes, by_rows.short_rows) == (None, 1)
    device = Device(80 * GIB)
    device.pass_s |= dict.fromkeys(device.pass_s, 0.5)  # as if it never had enough to do
    by_images = found(device, images=3)
    assert by_images.short_images == 3
    assert device.largest < 8
    whole = found(device, task=replace(TASK, rows=32))
    assert whole.pass_s[-1][0] == 64
    assert (whole.short_rows, whole.short_images) == (None, None), "there is no more to try"


def test_a_probe_takes_no_more_of_a_job_than_its_share() -> None:
    for images in (1, 10, 100, 1000):
        device = Device(80 * GIB)
        device.pass_s = {rows: 0.3 + rows / 50 for rows in device.pass_s}
        figures = found(device, images=images)
        job_s = images * image_s(figures, TASK)
        first_s = STEPS * (device.pass_s[1] + 2 * device.pass_s[2])  # the fewest rows are measured anyway
        measured_s = sum(STEPS * seconds for _, seconds in figures.pass_s)
        assert measured_s <= max(float(first_s), 2 * SHARE * job_s)
