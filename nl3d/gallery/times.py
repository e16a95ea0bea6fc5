"""Times of tracklets: text to seconds since 1970 and back."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from typing import TypeAlias

Time: TypeAlias = datetime | float | str
"""A moment: with its time zone, or as seconds since 1970 in UTC, or as text; see :func:`parse_time`."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)


def parse_time(value: Time, *, name: str = "time") -> float:
    """Return seconds since 1970 in UTC.

    Args:
        value: A ``datetime`` with a time zone, seconds since 1970, ISO 8601 text with a time zone, or an age such as
            ``"12h"``: that long ago.
        name: Name of the value in errors.

    Raises:
        ValueError: If the text is neither, or the time zone is missing.

    Example:
        >>> parse_time("2026-11-30T08:00:00Z") == parse_time("2026-11-30T09:00:00+01:00")
        True
    """
    if isinstance(value, str):
        if _AGE.fullmatch(value.strip()):
            return time.time() - parse_age(value, name=name)
        try:
            value = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
        except ValueError:
            raise ValueError(
                f"{name} must be ISO 8601 such as 2026-11-30T08:00:00Z, or an age such as 12h, got {value!r}"
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name} must have a time zone, such as {value.isoformat()}Z, got {value.isoformat()!r}")
        value = value.timestamp()
    if not abs(value) < 2**40:
        raise ValueError(f"{name} must be seconds since 1970, got {value}")
    return float(value)


def parse_age(value: timedelta | float | str, *, name: str = "age") -> float:
    """Return seconds of an age: a ``timedelta``, seconds, or text such as ``"30d"`` in s, m (minutes), h, d or w.

    Raises:
        ValueError: If it is below 0, or the text has another form.

    Example:
        >>> parse_age("30d") == 30 * 86400
        True
    """
    if isinstance(value, str):
        found = _AGE.fullmatch(value.strip())
        if not found:
            raise ValueError(f"{name} must be a number and one of s, m, h, d, w, such as 30d, got {value!r}")
        value = float(found[1]) * _UNITS[found[2]]
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds < 2**40:
        raise ValueError(f"{name} must be at least 0 seconds, got {value}")
    return seconds


def format_time(seconds: float) -> str:
    """Return ISO 8601 in UTC, to the second.

    Example:
        >>> format_time(1796025600.4)
        '2026-11-30T08:00:00Z'
    """
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(seconds // 1))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
