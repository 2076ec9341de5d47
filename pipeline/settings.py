"""The settings of one pipeline, checked against one another when made."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy

MIB = 1024 * 1024
GIB = 1024 * MIB

# Errors are what logs are kept for: they are never shed.
SHED_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """How one sink's records are held, batched and delivered.

    A batch closes at `max_records`, `max_bytes` (encoded bytes) or `max_wait_s` after its first
    record arrived.  Offers are refused above `high_watermark` of either capacity until what is
    held has fallen to `low_watermark`.

    A write that takes longer than `attempt_timeout_s` is aborted; of the threads that do not come
    back even then, the pipeline bears `max_hung_workers`.  When the sink refuses more than the
    share `poison_limit` of the records, the fault is taken to be its own and nothing is given up;
    1 switches that off.

    From `hint_watermark` on, clients are told how much room is left; from `shed_watermark` on, if
    there is one, records below the level `shed_below` are shed, the lowest levels first.

    With `partition_by = "tenant"` no batch holds two tenants' records: each tenant that has any
    waiting fills a batch of its own, `max_partitions` of them at most.  An `ordered` sink gets each
    tenant's records in the order of the log: while a batch is with the sink or waits to be tried
    again, later records of its tenants are held back, and of no others.
    """

    max_records: int = 5_000
    max_bytes: int = 4 * MIB
    max_wait_s: float = 0.2
    capacity_records: int = 10_000_000
    backlog_max_bytes: int = GIB
    high_watermark: float = 0.8
    low_watermark: float = 0.6
    hint_watermark: float = 0.7
    shed_watermark: float | None = None
    shed_below: str = "INFO"
    partition_by: str = ""
    max_partitions: int = 1_000
    ordered: bool = False
    min_workers: int = 1
    max_workers: int = 4
    attempt_timeout_s: float = 60.0
    max_hung_workers: int = 4
    poison_limit: float = 0.05
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    autoscale: AutoscaleSettings = field(default_factory=AutoscaleSettings)
    adaptive: AdaptiveSettings = field(default_factory=AdaptiveSettings)

    def __post_init__(self) -> None:
        problems = list(self.problems())
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its fields."""
        rules = (
            (self.max_records >= 1, "max_records must be at least 1"),
            (self.max_bytes >= 1, "max_bytes must be at least 1"),
            (self.max_wait_s >= 0, "max_wait_s must not be negative"),
            (
                self.capacity_records >= self.max_records,
                f"capacity_records ({self.capacity_records}) must hold at least one batch "
                f"of max_records ({self.max_records})",
            ),
            (
                self.backlog_max_bytes >= self.max_bytes,
                f"backlog_max_bytes ({self.backlog_max_bytes}) must hold at least one batch "
                f"of max_bytes ({self.max_bytes})",
            ),
            (
                0 < self.low_watermark <= self.high_watermark <= 1,
                f"watermarks must satisfy 0 < low_watermark ({self.low_watermark:g}) <= "
                f"high_watermark ({self.high_watermark:g}) <= 1",
            ),
            (0 < self.hint_watermark <= 1, "hint_watermark must be above 0 and at most 1"),
            (
                self.shed_watermark is None or 0 < self.shed_watermark <= 1,
                "shed_watermark must be above 0 and at most 1",
            ),
            (
                self.shed_below in SHED_LEVELS,
                f"shed_below must be one of {', '.join(SHED_LEVELS)}",
            ),
            (self.partition_by in ("", "tenant"), "partition_by must be empty or 'tenant'"),
            (self.max_partitions >= 1, "max_partitions must be at least 1"),
            (
                1 <= self.min_workers <= self.max_workers,
                f"workers must satisfy 1 <= min_workers ({self.min_workers}) <= "
                f"max_workers ({self.max_workers})",
            ),
            (self.attempt_timeout_s > 0, "attempt_timeout_s must be positive"),
            (self.max_hung_workers >= 1, "max_hung_workers must be at least 1"),
            (0 < self.poison_limit <= 1, "poison_limit must be above 0 and at most 1 (off)"),
        )
        return [message for holds, message in rules if not holds]
