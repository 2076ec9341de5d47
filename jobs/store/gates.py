"""How many jobs of a type may be claimed now, by its limits.  Arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Limited(Protocol):
    """What a gate asks of a type; `jobs.types.spec.TypeSpec` is one."""

    @property
    def max_concurrent(self) -> int | None: ...

    @property
    def rate_per_s(self) -> float | None: ...

    @property
    def burst(self) -> int | None: ...


def is_limited(type: Limited | None) -> bool:
    return type is not None and (type.max_concurrent is not None or type.rate_per_s is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a type's rate limit had left at some time; both are the database's."""

    level: float
    at_s: float

    def at(self, type: Limited, now_s: float) -> Gate:
        """Filled up to `now_s`.  A clock that was set back fills nothing and takes nothing."""
        if type.rate_per_s is None:
            return self
        passed_s = max(0.0, now_s - self.at_s)
        level = min(capacity(type), max(self.level, 0.0) + passed_s * type.rate_per_s)
        return Gate(level=level, at_s=now_s)

    def less(self, taken: int) -> Gate:
        return Gate(level=self.level - taken, at_s=self.at_s)


def capacity(type: Limited) -> float:
    if type.rate_per_s is None:
        return 0.0
    return float(type.burst or max(1, math.ceil(type.rate_per_s)))


def full(type: Limited, now_s: float) -> Gate:
    return Gate(level=capacity(type), at_s=now_s)


def room(type: Limited, gate: Gate, running: int, limit: int) -> int:
    """How many more may be claimed, of at most `limit`."""
    if type.max_concurrent is not None:
        limit = min(limit, type.max_concurrent - running)
    if type.rate_per_s is not None:
        # A hair below a whole one is a whole one: times are rounded to microseconds.
        limit = min(limit, math.floor(gate.level + 1e-6))
    return max(0, limit)
