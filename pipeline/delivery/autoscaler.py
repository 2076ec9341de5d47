"""The autoscaler: how many workers a pipeline should have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleSettings:
    """When a pipeline gets a worker more or one less, between `min_workers` and `max_workers`.

    Every `interval_s`, one step at a time and none within `cooldown_s` of the last: up when what is
    held is more than the share `up` of the room that offers may fill, or when more than
    `up_batches` full batches wait for each worker (0: that does not count); down when less than the
    share `down` is held and no full batch waits.
    """

    interval_s: float = 1.0
    up: float = 0.8
    down: float = 0.2
    up_batches: int = 2
    cooldown_s: float = 2.0

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its field."""
        rules = (
            (self.interval_s > 0, "autoscale interval_s must be positive"),
            (0 <= self.down < self.up <= 1, "autoscale must satisfy 0 <= down < up <= 1"),
            (self.up_batches >= 0, "autoscale up_batches must not be negative"),
            (self.cooldown_s >= 0, "autoscale cooldown_s must not be negative"),
        )
        return [message for holds, message in rules if not holds]
