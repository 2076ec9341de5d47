"""When a target is probed: on a grid of its own, so that thousands never start together.

The grid is fixed by the target's id and interval alone: every checker, and whoever shows the next
probe, works out the same times.  Pure functions.
"""

from __future__ import annotations

_GOLDEN = 2_654_435_761  # 2**32 / golden ratio: ids that follow one another land far apart


def phase_of(target_id: int) -> float:
    """The target's place in its interval, from 0 up to 1."""
    return (target_id * _GOLDEN & 0xFFFFFFFF) / 2**32


def next_on_grid(target_id: int, interval_s: float, after_s: float) -> float:
    """The first time of the grid that is later than `after_s` (seconds since 1970)."""
    offset = phase_of(target_id) * interval_s
    steps = (after_s - offset) // interval_s + 1
    return offset + steps * interval_s
