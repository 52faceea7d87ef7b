"""Sizes and durations as people write and read them. Inside batchgen sizes are in bytes and durations in seconds."""

import re
from datetime import datetime, time, timedelta

from batchgen.errors import ConfigError

GIB = 1 << 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{prefix}{i}b": (1024 if i else 1000) ** power for power, prefix in enumerate("kmgt", 1) for i in ("", "i")}
# 1d2h, 7h30m, 90m, 45s; or 07:30:00 and 1-07:30:00, as sbatch writes them.
_DURATION = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m(?:in)?)?\s*(?:(\d+)s)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d)")

_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_DATED = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


def size_bytes(name: str, value: str) -> int:
    """`6GiB`, `6GB` (which is less) or `800MiB` in bytes. Raises ConfigError, which names the key `name`."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ConfigError(f"{name}={value} is not a size: write it as 6GiB, 6GB or 800MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def duration_s(name: str, value: str) -> float:
    """`7h30m`, `90m`, `45s`, `1d12h`, or `07:30:00` and `1-12:00:00` as sbatch writes them, in seconds; more than 0.

    Raises ConfigError, which names the key `name`, also for a bare number and for `07:30`: these say no unit.
    """
    text = str(value).strip()
    match = (_DURATION.fullmatch(text) if text else None) or _CLOCK.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total_s:
        raise ConfigError(f"{name}={value} is not a duration: write it as 7h30m, 90m or 07:30:00, in a file in quotes")
    return float(total_s)


def moment_s(name: str, value: str, now_s: float) -> float:
    """The next `07:00` or `07:00:30` of the local clock after `now_s`, or the moment of `2026-03-31T07:00`.

    All in s since the epoch. Raises ConfigError, which names the key `name`.
    """
    text = str(value).strip()
    try:
        if match := _TIME_OF_DAY.fullmatch(text):
            hour, minute, second = (int(part or 0) for part in match.groups())
            wanted = time(hour, minute, second)
            today = datetime.fromtimestamp(now_s).date()
            # Counted by the calendar, because a day may have 23 or 25 hours.
            days = (datetime.combine(today + timedelta(days=ahead), wanted).timestamp() for ahead in range(3))
            return next(moment for moment in days if moment > now_s)
        if _DATED.match(text):
            return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass  # 25:00, or the 31st of February
    raise ConfigError(
        f"{name}={value} is not a time: write it as 07:00, in a file in quotes, or with its date as 2026-03-31T07:00"
    )


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
