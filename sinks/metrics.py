"""Prometheus metrics of the pipelines and the log, fed by the engine's observer.

Counters and histograms are counted where things happen, on worker threads; gauges are set when a
batch closes and whenever the statistics are read (every second by the conservation check, by the
heart, by `/stats`).  With several server processes prometheus_client keeps them in files: gauges
add up over living processes; imbalances, alarms and breakers show the greatest, without their sign.
Labels are bounded: sinks and reasons.  What the metrics are is in `sinks.metricset`.

`metrics()` is made once per process, at `ready()`, before there are threads that could ask.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from pipeline.deadletter import DeadLetter
from pipeline.engine import Engine
from pipeline.observer import Observer
from pipeline.record import Batch, Record
from pipeline.runtime.clock import Clock, SystemClock
from sinks.metricset import BREAKER_VALUES, Metrics

__all__ = ["INTENTIONAL", "EngineMetrics", "Metrics", "metrics"]

INTENTIONAL = frozenset({"backlog", "unrouted", "shed", "sink_removed"})
"""Reasons for which records end unstored because somebody chose so."""

_BATCHES_FOLLOWED = 4_096


@cache
def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    return Metrics()


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
        self._counted: Counter[tuple[str, str]] = Counter()
        # By log and number: adopted logs count their batches from 1 as well.
        self._closed_at: dict[tuple[str, int], float] = {}

    def batch_closed(self, batch: Batch) -> None:
        sink = self._name(batch.sink)
        self._into.batch_size.labels(sink).observe(batch.count)
        self._into.batches_flushed.labels(sink, batch.reason).inc()
        self._into.flush_reason.labels(batch.reason).inc()
        if len(self._closed_at) >= _BATCHES_FOLLOWED:
            self._closed_at.pop(next(iter(self._closed_at), ("", -1)), None)
        self._closed_at[batch.log_id, batch.number] = self._clock.monotonic()
        self._set_queues()

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        sink = self._name(batch.sink)
        self._into.write_latency.labels(sink).observe(seconds)
        if error is not None:
            self._into.worker_failures.labels(sink, _kind(error)).inc()

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        sink = self._name(batch.sink)
        closed_at = self._closed_at.pop((batch.log_id, batch.number), None)
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

    def records_dead_lettered(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        for reason, count in Counter(letter.reason for letter in letters).items():
            self._into.dead_letters.labels(pipeline, reason).inc(count)

    def breaker_changed(self, pipeline: str, state: str, cause: str) -> None:
        with self._lock:
            self._into.breaker_state.labels(pipeline).set(BREAKER_VALUES.get(state, 0))
            self._gauged.add(pipeline)

    def scaled(self, pipeline: str, workers: int, step: int, why: str) -> None:
        self._into.autoscaler_decisions.labels(pipeline, "up" if step > 0 else "down").inc()
        self._set_queues()

    def log_synced(self, frames: int, nbytes: int, seconds: float) -> None:
        self._into.wal_fsync_seconds.observe(seconds)
        self._into.wal_fsync_frames.observe(frames)

    def log_failed(self, error: str) -> None:
        self._into.wal_errors.inc()

    def log_finished(self, log_id: str, figures: Mapping[str, Any]) -> None:
        with self._lock:
            self._count_damaged(figures)

    def refresh(self, stats: Mapping[str, Any]) -> None:
        """Set the gauges from the engine's statistics; a sink that is gone reads 0."""
        imbalances: dict[str, int] = {}
        adopted = (stats.get("log") or {}).get("adopted") or ()
        for row in chain(stats["ledger"], *(one.get("ledger") or () for one in adopted)):
            known = imbalances.get(row["sink"], 0)
            imbalances[row["sink"]] = max(known, abs(row["imbalance"]))
        with self._lock:
            gone, self._gauged = self._gauged, set()
            for one in stats["pipelines"]:
                self._set(one["name"], one["held_records"], one["held_bytes"], one["workers"])
                self._set_breaker(one)
            for name, imbalance in imbalances.items():
                self._into.ledger_imbalance.labels(name).set(imbalance)
            for name in self._gauged - imbalances.keys():
                self._into.ledger_imbalance.labels(name).set(0)
            self._gauged |= imbalances.keys()
            for name in gone - self._gauged:
                self._set(name, 0, 0, 0)
                self._set_breaker({"name": name})
                self._into.ledger_imbalance.labels(name).set(0)
                self._gauged.discard(name)
            self._set_log(stats.get("log") or {})

    def _set_breaker(self, one: Mapping[str, Any]) -> None:
        """Called with `_lock` held."""
        name, breaker = one["name"], one.get("breaker") or {}
        value = BREAKER_VALUES.get(breaker.get("state", "closed"), 0)
        self._into.breaker_state.labels(name).set(value)
        self._into.hung_workers.labels(name).set(len(one.get("hung_workers") or ()))
        if "key" in one:
            trips = self._more("trips", one["key"], breaker.get("trips", 0))
            self._into.breaker_trips.labels(name).inc(trips)

    def _set_log(self, log: Mapping[str, Any]) -> None:
        """Called with `_lock` held."""
        logs = (log, *(log.get("adopted") or ()))
        self._into.wal_bytes.set(sum(one.get("bytes", 0) for one in logs))
        self._into.wal_segments.set(sum(one.get("segments", 0) for one in logs))
        self._into.wal_cache_bytes.set(log.get("cache_bytes", 0))
        self._into.wal_adopted_logs.set(len(logs) - 1)
        self._into.log_left_records.set(sum(one.get("left_records", 0) for one in logs))
        for one in logs:
            self._count_damaged(one)

    def _count_damaged(self, one: Mapping[str, Any]) -> None:
        """Called with `_lock` held."""
        damaged = one.get("corrupt_frames", 0) + one.get("torn_frames", 0)
        more = self._more("damaged", one.get("log_id", ""), damaged)
        self._into.wal_corrupt_frames.inc(more)

    def _more(self, what: str, of: str, total: int) -> int:
        """By how much a total of the engine's has grown since it was last seen."""
        more = max(0, total - self._counted[what, of])
        self._counted[what, of] = total
        return more

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
