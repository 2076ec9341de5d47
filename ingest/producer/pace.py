"""Owns: how long the producer pauses before each log, from how full the queue is.  Pure."""

from __future__ import annotations

# Above this share of the queue, pause so long (seconds); the highest first.
STEPS = ((0.95, 0.002), (0.90, 0.001), (0.80, 0.000_5))


def pace(usage: float) -> float:
    """Seconds to pause; `usage` is what is held over what the queue holds, 0 to 1."""
    for above, pause_s in STEPS:
        if usage > above:
            return pause_s
    return 0.0
