"""Figures of health as people read them.  Pure functions."""

from __future__ import annotations

from control.admin.figures import NOTHING, duration


def uptime_text(ratio: float | None) -> str:
    """An uptime is never rounded up to 100 %."""
    if ratio is None:
        return NOTHING
    value = ratio * 100
    if value >= 100:
        return "100 %"
    cut = int(value * 1000) / 1000
    return f"{cut:.3f} %" if cut >= 99.9 else f"{int(value * 100) / 100:.2f} %"


def latency_text(milliseconds: float | None) -> str:
    return NOTHING if milliseconds is None else duration(milliseconds / 1000)


def seconds_text(seconds: float) -> str:
    """A setting in seconds: 30 s, 5 min, 24 h, without rounding it away."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
