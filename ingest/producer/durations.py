"""Owns: durations as a command line writes them, `100us`, `500ms`, `1m30s`.

Pure; runs on the command's main thread while options are read.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable

_UNITS = {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_ONE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds; raises ValueError unless each number has a unit (but 0 needs none)."""
    if text.strip() == "0":
        return 0.0
    seconds, end = 0.0, 0
    while end < len(text) and (found := _ONE.match(text, end)) is not None:
        seconds += float(found[1]) * _UNITS[found[2]]
        end = found.end()
    if not text or end < len(text):
        raise ValueError(f"{text[:40]!r} is no duration: write it like 100us, 500ms, 1s or 1m30s")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling with one unit, such as `500us` for 0.0005."""
    if not seconds:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.6g}{unit}"
    return f"{seconds / 1e-6:.6g}us"


def duration(low: float, high: float) -> Callable[[str], float]:
    """The type of an option: seconds from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        if not low <= seconds <= high:
            raise ArgumentTypeError(
                f"{text} is not between {format_duration(low)} and {format_duration(high)}"
            )
        return seconds

    return parse
