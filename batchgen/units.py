"""Sizes as people write and read them. Inside batchgen all sizes are in bytes."""

import re

from batchgen.errors import ConfigError

GIB = 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{prefix}{i}b": (1024 if i else 1000) ** power for power, prefix in enumerate("kmgt", 1) for i in ("", "i")}


def size_bytes(name: str, value: str) -> int:
    """`6GiB`, `6GB` (which is less) or `800MiB` in bytes. Raises ConfigError, which names the key `name`."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ConfigError(f"{name}={value} is not a size: write it as 6GiB, 6GB or 800MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def gib(size: int) -> str:
    """Bytes as a person reads them, in GiB or MiB."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / (1 << 20):,.1f} MiB"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: 1 shard, 2 shards; `plural` where that is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m05s, 2h10m."""
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest_s:02d}s" if minutes else f"{rest_s}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
