"""Prometheus metrics of the pipelines, fed by the engine's observer.

Counters and histograms are counted where things happen, on worker threads; gauges are set when a
batch closes and whenever the statistics are read (by the heart every few seconds, by `/stats`).
With several server processes prometheus_client keeps them in files: gauges add up over living
processes, imbalances show the greatest, without their sign.  Labels are bounded: sinks and reasons.

`_metrics` is made once per process and registry, at `ready()` or by a test.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from pipeline.engine import Engine
from pipeline.observer import Observer
from pipeline.record import Batch, Record
from pipeline.runtime.clock import Clock, SystemClock

INTENTIONAL = frozenset({"backlog", "unrouted", "shed", "sink_removed"})
"""Reasons for which records end unstored because somebody chose so."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RECORDS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000)
_BATCHES_FOLLOWED = 4_096


class Metrics:
    """The metrics themselves; one object per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)

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
        self.ledger_imbalance = gauge(
            "ledger_imbalance",
            "Records that the accounts differ by, in either direction; anything but 0 is a defect.",
            "sink",
            mode="livemax",
        )


_lock = threading.Lock()
_metrics: Metrics | None = None


def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    global _metrics
    with _lock:
        if _metrics is None:
            _metrics = Metrics()
        return _metrics


class EngineMetrics(Observer):
    """Feeds the metrics from one engine.

    `_lock` guards the gauges and which names they have, or a renamed sink's would be set once more
    after they were cleared.  `_closed_at` is touched by single dictionary operations only, so it
    needs no lock; at worst a batch's flush duration is not observed.
    """

    def __init__(
        self, engine: Engine, *, into: Metrics | None = None, clock: Clock | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock or SystemClock()
        self._into = into or metrics()
        self._lock = threading.Lock()
        self._gauged: set[str] = set()
        self._closed_at: dict[int, float] = {}

    def batch_closed(self, batch: Batch) -> None:
        sink = self._name(batch.sink)
        self._into.batch_size.labels(sink).observe(batch.count)
        self._into.batches_flushed.labels(sink, batch.reason).inc()
        self._into.flush_reason.labels(batch.reason).inc()
        if len(self._closed_at) >= _BATCHES_FOLLOWED:
            self._closed_at.pop(next(iter(self._closed_at), -1), None)
        self._closed_at[batch.number] = self._clock.monotonic()
        self._set_queues()

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        sink = self._name(batch.sink)
        self._into.write_latency.labels(sink).observe(seconds)
        if error is not None:
            self._into.worker_failures.labels(sink, _kind(error)).inc()

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        sink = self._name(batch.sink)
        closed_at = self._closed_at.pop(batch.number, None)
        if closed_at is not None:
            seconds = max(0.0, self._clock.monotonic() - closed_at)
            self._into.flush_duration.labels(sink).observe(seconds)
        self._into.records_stored.labels(sink).inc(stored + already_stored)

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        self._into.worker_retries.labels(self._name(batch.sink)).inc()

    def records_dropped(
        self, pipeline: str, tenant: str, records: Iterable[Record], reason: str, error: str
    ) -> None:
        intentional = "true" if reason in INTENTIONAL else "false"
        count = sum(1 for _ in records)
        self._into.records_dropped.labels(pipeline, reason, intentional).inc(count)

    def refresh(self, stats: dict[str, Any]) -> None:
        """Set the gauges from the engine's statistics; a sink that is gone reads 0."""
        imbalances: dict[str, int] = {}
        for row in stats["ledger"]:
            known = imbalances.get(row["sink"], 0)
            imbalances[row["sink"]] = max(known, abs(row["imbalance"]))
        with self._lock:
            gone, self._gauged = self._gauged, set()
            for one in stats["pipelines"]:
                self._set(one["name"], one["held_records"], one["held_bytes"], one["workers"])
            for name, imbalance in imbalances.items():
                self._into.ledger_imbalance.labels(name).set(imbalance)
            for name in self._gauged - imbalances.keys():
                self._into.ledger_imbalance.labels(name).set(0)
            self._gauged |= imbalances.keys()
            for name in gone - self._gauged:
                self._set(name, 0, 0, 0)
                self._into.ledger_imbalance.labels(name).set(0)
                self._gauged.discard(name)

    def _set_queues(self) -> None:
        with self._lock:
            for pipeline in self._engine.pipelines:
                held = pipeline.admission
                self._set(
                    pipeline.spec.name, held.held_records, held.held_bytes, len(pipeline.workers)
                )

    def _set(self, name: str, held_records: int, held_bytes: int, workers: int) -> None:
        """Called with `_lock` held."""
        self._into.queue_depth.labels(name).set(held_records)
        self._into.queue_bytes.labels(name).set(held_bytes)
        self._into.active_workers.labels(name).set(workers)
        self._gauged.add(name)

    def _name(self, key: str) -> str:
        """The sink's name as it is now: looked up each time, as it may be renamed at any."""
        for pipeline in (*self._engine.pipelines, *self._engine.retired):
            if pipeline.key == key:
                return pipeline.spec.name
        return key


def _kind(error: BaseException) -> str:
    """The error's class, of which there are few: a third party's own classes read as `other`."""
    name = type(error).__name__
    return name if name in _KINDS else "other"


_KINDS = frozenset({"RetryableError", "PermanentError", "PartialFailure", "SinkFault"})
