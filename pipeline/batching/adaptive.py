"""Sizes that find themselves: how large a batch is, how many of them a sink gets at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSettings:
    """What a pipeline finds out by itself; off unless set.

    With `batch` the count at which a batch closes starts at `start_records` and moves between
    `min_records` and `max_records`, so that a flush takes less than half of `flush_deadline_s`.
    With `concurrency` the number of batches that are with the sink at once moves between 1 and the
    number of workers.
    """

    batch: bool = False
    concurrency: bool = False
    start_records: int = 100
    min_records: int = 10
    max_records: int = 10_000
    flush_deadline_s: float = 1.0

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its field."""
        rules = (
            (
                1 <= self.min_records <= self.start_records <= self.max_records,
                "adaptive must satisfy 1 <= min_records <= start_records <= max_records",
            ),
            (self.flush_deadline_s > 0, "adaptive flush_deadline_s must be positive"),
        )
        return [message for holds, message in rules if not holds]
