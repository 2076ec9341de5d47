"""Figures as people read them: compact counts, durations, bytes. Pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta

NOTHING = "\N{EN DASH}"
_COUNT_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}".rstrip("0").removesuffix(".")


def compact(value: float | None) -> str:
    """1234567 as 1.23 M; below 10,000 in full, so that small figures stay exact."""
    if value is None:
        return NOTHING
    if value < 0:
        return f"-{compact(-value)}"
    if value < 100 and value != int(value):
        return _three_digits(value)
    if value < 10_000:
        return f"{value:,.0f}"
    for size, unit in _COUNT_UNITS:
        # 999,950 would round to "1000 k" in the smaller unit.
        if value >= size * 0.9995:
            return f"{_three_digits(value / size)} {unit}"
    raise AssertionError("every value from 10,000 up has a unit")


def duration(seconds: float | None) -> str:
    """A length of time in the unit that reads best: 850 µs, 12 ms, 4.2 s, 1 min 30 s, 5 h, 2 d."""
    if seconds is None:
        return NOTHING
    if seconds <= 0:
        return "0 s"
    if seconds < 0.001:
        return f"{_three_digits(seconds * 1e6)} µs"
    if seconds < 1:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 60:
        return f"{_three_digits(seconds)} s"
    minutes = seconds / 60
    whole, rest = divmod(round(seconds), 60)
    if whole < 10:
        return f"{whole} min {rest} s" if rest else f"{whole} min"
    if round(minutes) < 60:
        return f"{minutes:.0f} min"
    if minutes < 60 * 48:
        hours, rest = divmod(round(minutes), 60)
        return f"{hours} h {rest} min" if rest and hours < 10 else f"{hours} h"
    return f"{minutes / 1440:.0f} d"


def size(nbytes: float | None) -> str:
    """Bytes in binary units: 4.2 MiB."""
    if nbytes is None:
        return NOTHING
    value = float(nbytes)
    for unit in _BYTE_UNITS[:-1]:
        if value < 1024:
            return f"{_three_digits(value)} {unit}"
        value /= 1024
    return f"{_three_digits(value)} {_BYTE_UNITS[-1]}"


def percent(ratio: float | None) -> str:
    """A ratio as a percentage; a small one is not rounded down to nothing."""
    if ratio is None:
        return NOTHING
    value = ratio * 100
    if 0 < value < 1:
        return "<1 %"
    return f"{value:.0f} %"


def ago(then: datetime | None, now: datetime) -> str:
    """How long since `then`."""
    if then is None:
        return "never"
    passed = now - then
    if passed < timedelta(seconds=1):
        return "now"
    seconds = int(passed.total_seconds())
    # It grows while it is read: from a minute on, seconds would only be noise.
    return f"{duration(seconds if seconds < 60 else round(seconds / 60) * 60)} ago"
