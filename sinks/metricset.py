"""The metrics of pipelines and log by name: what each is called, what it tells, how it adds up.

Made once per registry by `sinks.metrics`, which feeds them.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SYNC_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30,
)  # fmt: skip
_RECORDS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)

BREAKER_VALUES = {"closed": 0, "half_open": 1, "open": 2}


class _Maker:
    """Makes metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)

    def gauge(self, name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)


class Metrics:
    """The metrics themselves; one object per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        make = _Maker(registry)
        counter, gauge, histogram = make.counter, make.gauge, make.histogram
        self.batch_size = histogram("batch_size", "Records in a batch.", _RECORDS, "sink")
        self.batches_flushed = counter(
            "batches_flushed_total", "Batches closed, by what closed them.", "sink", "reason"
        )
        self.flush_reason = counter(
            "flush_reason_total", "Batches closed, by what closed them, over all sinks.", "reason"
        )
        self.flush_duration = histogram(
            "flush_duration_seconds",
            "From a batch's closing to its end, with all its attempts.",
            _SECONDS,
            "sink",
        )
        self.write_latency = histogram(
            "write_latency_seconds", "One attempt of a sink to store a batch.", _SECONDS, "sink"
        )
        self.worker_failures = counter(
            "worker_failures_total", "Attempts that failed, by the kind of error.", "sink", "error"
        )
        self.worker_retries = counter(
            "worker_retries_total", "Batches put back for another attempt.", "sink"
        )
        self.records_stored = counter(
            "records_stored_total", "Records stored, found stored already included.", "sink"
        )
        self.records_dropped = counter(
            "records_dropped_total",
            "Records that ended without being stored.",
            "sink",
            "reason",
            "intentional",
        )
        self.queue_depth = gauge("queue_depth", "Records held for a sink.", "sink")
        self.queue_bytes = gauge("queue_bytes", "Bytes held for a sink.", "sink")
        self.active_workers = gauge("active_workers_count", "Living worker threads.", "pool")
        self.autoscaler_decisions = counter(
            "autoscaler_decisions_total",
            "Workers that the autoscaler added (up) or told to end (down).",
            "sink",
            "direction",
        )
        self.ledger_imbalance = gauge(
            "ledger_imbalance",
            "Records that the accounts differ by, in either direction; anything but 0 is a defect.",
            "sink",
            mode="livemax",
        )
        self.ledger_alarm = gauge(
            "ledger_alarm",
            "1 while a ledger of the sink has not balanced for five seconds.",
            "sink",
            mode="livemax",
        )
        self.dead_letters = counter(
            "dead_letters_total", "Records put aside as dead letters.", "sink", "reason"
        )
        self.breaker_state = gauge(
            "breaker_state",
            "The sink's breaker: 0 closed, 1 half-open, 2 open.",
            "sink",
            mode="livemax",
        )
        self.breaker_trips = counter(
            "breaker_trips_total", "Times that the sink's breaker opened.", "sink"
        )
        self.hung_workers = gauge(
            "hung_workers", "Worker threads that do not come back from the sink.", "sink"
        )
        self._log(make)

    def _log(self, make: _Maker) -> None:
        counter, gauge, histogram = make.counter, make.gauge, make.histogram
        self.wal_bytes = gauge("wal_bytes", "Bytes of segments, of own and adopted logs.")
        self.wal_segments = gauge("wal_segments", "Segments of own and adopted logs.")
        self.wal_cache_bytes = gauge("wal_cache_bytes", "Bytes of the log kept in memory.")
        self.wal_fsync_seconds = histogram(
            "wal_fsync_seconds", "One sync of the log to its disk.", _SYNC_SECONDS
        )
        self.wal_fsync_frames = histogram(
            "wal_fsync_frames", "Frames made durable by one sync.", _FRAMES
        )
        self.wal_errors = counter(
            "wal_errors_total", "Writes or syncs of the log that failed; their frames were refused."
        )
        self.wal_corrupt_frames = counter(
            "wal_corrupt_frames_total", "Frames found torn or corrupt, and quarantined."
        )
        self.wal_adopted_logs = gauge(
            "wal_adopted_logs", "Logs of ended processes that are being delivered."
        )
        self.log_left_records = gauge(
            "log_left_records", "Records in own and adopted logs that some sink is still owed."
        )
