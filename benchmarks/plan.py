"""Owns: how much is measured: sizes and repetitions, full or quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.comparison import Comparison


def _keep_nothing(comparison: Comparison) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`say` is told of progress, `show` of what can be drawn."""

    quick: bool
    repetitions: int
    records: int  # of one bulk repetition
    single_requests: int  # of one repetition of one record a request
    say: Callable[[str], None]
    batch: int = 1000
    clients: int = 8
    show: Callable[[Comparison], None] = _keep_nothing

    @property
    def hammer_seconds(self) -> float:
        return 4.0 if self.quick else 12.0

    @property
    def memory_marks_s(self) -> tuple[float, float]:
        """When the first and the last look at the memory are taken."""
        return (5.0, 15.0) if self.quick else (10.0, 60.0)
