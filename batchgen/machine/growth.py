"""Whether memory grows over a long run: the slope through its readings, and when a new worker should take over."""

from collections.abc import Sequence

# Caches fill in the beginning, so the first tenth of the readings says nothing; neither do only a few readings.
_WARM_SHARE = 0.1
_FEWEST = 20
_MOST_KEPT = 4096
# A worker whose memory has grown steadily by this much is replaced, however much memory is left.
MOST_GROWN_BYTES = 4 << 30
# So is a worker that would take this share of the available memory before the next chance to replace it.
_MOST_OF_AVAILABLE = 0.5


class Growth:
    """Readings of one kind of memory, one for each unit of work."""

    def __init__(self) -> None:
        self._readings: list[tuple[int, int]] = []
        self._count = 0

    def add(self, value_bytes: int | None) -> None:
        """Add a reading in bytes; None if there is nothing to read."""
        if value_bytes is not None:
            self._readings.append((self._count, value_bytes))
        self._count += 1
        if len(self._readings) > _MOST_KEPT:
            self._readings = self._readings[::2]

    def slope_bytes(self) -> float:
        """How many bytes it grows by with each unit of work, by least squares; 0 until there are enough readings."""
        readings = self._warm()
        return _slope(readings) if len(readings) >= _FEWEST else 0.0

    def grown_bytes(self) -> float:
        """How many bytes it has grown by since the beginning was over, by that slope."""
        readings = self._warm()
        return self.slope_bytes() * (readings[-1][0] - readings[0][0]) if readings else 0.0

    def _warm(self) -> list[tuple[int, int]]:
        return [one for one in self._readings if one[0] >= _WARM_SHARE * self._count]


def wants_renewal(growth: Growth, available_bytes: int, units_ahead: int) -> bool:
    """Whether memory has already grown too much, or would run short before `units_ahead` more units are done."""
    ahead_bytes = growth.slope_bytes() * units_ahead
    return ahead_bytes > _MOST_OF_AVAILABLE * available_bytes or growth.grown_bytes() > MOST_GROWN_BYTES


def _slope(points: Sequence[tuple[int, int]]) -> float:
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
