"""The service that owns this process's engine: made from rows, kept like them, drained at the end.

Started and stopped by `control.processes.lifecycle`, watched by the heart: when the rows change,
the engine is told within two seconds.  A row that cannot be used makes its own pipeline
`misconfigured`.  `_lock` guards the engine's coming and going; applying rows, draining and
printing happen outside it.  `_apply_lock` lets one thread at a time apply rows.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseProblem

from control.ports.adoption import adopted
from control.ports.readiness import register_readiness
from control.ports.requests import register_request_handler
from control.ports.stats import register_peaks, register_stats
from control.processes import heart, nodes
from control.processes.workers import worker_history
from pipeline.engine import Engine
from pipeline.errors import LogUnavailable
from pipeline.log.settings import LogSettings
from pipeline.runtime.clock import Clock, SystemClock
from pipeline.spec import PipelineSpec
from sinks import backlog, drainwatch, report, snapshot
from sinks.closing import closed, in_files
from sinks.configuration import rows_fingerprint, spec_for
from sinks.finished import finished_logs
from sinks.internal import internal_sinks
from sinks.logs import BatchLog
from sinks.metrics import EngineMetrics
from sinks.models import SinkConfig
from sinks.tracing import tracing_observer

logger = logging.getLogger(__name__)

ORDER = 50
# What a stop takes that waits for nothing but the end of writes under way.
HURRY_S = 1.0
# Commands talk to living processes instead of making pipelines of their own.
ROLES_WITHOUT_ENGINE = frozenset({"command", "jobs"})
WATCH, RESERVE, RENEW = "sinks", "record-id reservation", "record-id lease"
BEGIN, GONE = "log", "backlog of removed sinks"
GONE_EVERY_S = 10.0
BEGIN_EVERY_S = 1.0


class SinkService:
    """A process's engine and its life."""

    name = "sinks"
    order = ORDER

    def __init__(
        self, *, clock: Clock | None = None, on_report: Callable[[str], None] | None = None
    ):
        self._clock = clock or SystemClock()
        self._on_report = on_report or report.to_stderr
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._apply_lock = threading.Lock()
        self._engine: Engine | None = None
        self._metrics: EngineMetrics | None = None
        self._node: nodes.NodeLease | None = None
        self._applied = ""
        self._draining = False
        self._starting = False
        self._log_error = ""
        self._last_stats: dict[str, Any] = {}

    # --- life ------------------------------------------------------------------------------

    def start(self, role: str) -> None:
        """Make the engine, give it the rows, start it."""
        if role in ROLES_WITHOUT_ENGINE:
            return
        with self._lock:
            if self._engine is not None or self._starting:
                return
            self._starting = True
        try:
            node = nodes.take_node(data_dir=settings.COLLECTOR.server.data_dir, clock=self._clock)
        except BaseException:
            with self._lock:
                self._starting = False
            raise
        with self._lock:
            self._node, self._starting = node, False
        heart.every(RESERVE, nodes.RESERVE_INTERVAL_S, node.reserve, database=False)
        heart.every(RENEW, nodes.RENEW_INTERVAL_S, node.renew)
        self._begin(node)

    def _begin(self, node: nodes.NodeLease) -> None:
        """Make the engine and start it; while its files cannot be made, again every second."""
        try:
            engine = Engine(
                log_id=uuid.uuid4().hex,
                ids=node.ids,
                clock=self._clock,
                log_settings=_log_settings(),
            )
        except OSError as error:
            if not self._log_error:
                logger.error("the log cannot be made, and nothing is taken in: %s", error)
                # Once: a task that is registered anew is due at once.
                heart.every(BEGIN, BEGIN_EVERY_S, lambda: self._begin(node), database=False)
            self._log_error = f"the log cannot be made: {error}"
            return
        heart.heart().forget(BEGIN)
        metrics = EngineMetrics(engine, clock=self._clock)
        with self._lock:
            self._engine, self._metrics = engine, metrics
            self._applied, self._draining, self._log_error = "", False, ""
        observers = [
            metrics,
            worker_history(),
            BatchLog(),
            finished_logs(),
            tracing_observer(),
        ]
        for observer in observers:
            if observer is not None:
                engine.observe(observer)
        engine.on_adopted(adopted)
        self.apply()
        engine.start()
        heart.every(GONE, GONE_EVERY_S, self._discard_for_gone)
        heart.watch(
            WATCH,
            self._fingerprint,
            self.apply,
            seen=self._applied or None,
            interval_s=settings.COLLECTOR.sinks.poll_s,
        )

    def stop(self, deadline_s: float) -> None:
        """Drain within the deadline, end the threads, print the ledger."""
        with self._lock:
            engine, metrics, node = self._engine, self._metrics, self._node
            self._draining = True
        for task in (BEGIN, GONE, WATCH, RESERVE, RENEW):
            heart.heart().forget(task)
        if engine is None:
            if node is not None:
                node.release()
            return
        with drainwatch.telling(engine, clock=self._clock, say=self._on_report):
            settled = engine.stop(deadline_s)
        stats = closed(engine.stats())
        if metrics is not None:
            metrics.refresh(stats)
        self._on_report(report.table(stats))
        report.log(stats, settled=settled)
        finished_logs().write_last()
        if node is not None:
            node.release()
        with self._lock:
            self._engine = self._metrics = self._node = None
            self._last_stats = stats

    def hurry(self) -> None:
        """End a stop that is under way at once, if what is held outlives this process."""
        engine = self._engine
        if engine is None or not self._draining:
            return
        if not in_files(engine.stats()):
            logger.warning("the drain goes on: what is held is in memory alone")
            return
        engine.stop(HURRY_S)

    def after_fork(self) -> None:
        """The parent's engine has no threads here, and its record-id number is not ours."""
        if self._engine is not None:
            self._engine.abandon()
        if self._node is not None:
            self._node.abandon()
        self._reset()

    def register_ports(self) -> None:
        """Answer for this process's pipelines: figures, readiness, requests of other processes."""
        register_stats(self.stats)
        register_peaks(self.take_peaks)
        register_readiness("sinks", self.readiness)
        register_request_handler("flush", self._flush)
        register_request_handler("drain", self._drain)
        register_request_handler(backlog.DISCARD, self._discard)

    # --- what others ask -------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The running engine.

        Raises LogUnavailable while its log cannot be made, RuntimeError where none runs.
        """
        engine = self._engine
        if engine is None and self._log_error:
            raise LogUnavailable(self._log_error, retry_after_s=5.0)
        if engine is None:
            raise RuntimeError(
                "this process has no engine: start its services with control.processes.lifecycle"
            )
        return engine

    @property
    def running(self) -> bool:
        return self._engine is not None

    def stats(self) -> dict[str, Any]:
        """The engine's figures; also what brings the gauges up to date."""
        engine, metrics = self._engine, self._metrics
        if engine is None:
            return dict(self._last_stats)
        stats = engine.stats()
        if metrics is not None:
            metrics.refresh(stats)
        return stats

    def take_peaks(self) -> dict[str, float]:
        """How full each pipeline was at most since the last call."""
        engine = self._engine
        if engine is None:
            return {}
        return {one.key: one.admission.take_peak() for one in engine.pipelines}

    def readiness(self) -> str | None:
        """Why this process should get no traffic."""
        engine = self._engine
        if engine is None:
            return self._log_error or "the pipelines are not running"
        if self._draining:
            return "draining"
        if (unavailable := engine.log_refusal()) is not None:
            return str(unavailable)
        pipelines = engine.pipelines
        if all(pipeline.spec.internal for pipeline in pipelines):
            return "no sink is enabled: records would be refused"
        for pipeline in pipelines:
            if not pipeline.spec.required:
                continue
            if pipeline.spec.misconfigured:
                return f"required sink {pipeline.spec.name} is misconfigured"
            if pipeline.admission.refusing:
                cause = f"required sink {pipeline.spec.name} is full"
                if pipeline.state == "failing":
                    cause += f", as its writes fail: {pipeline.figures.last_error[:200]}"
                return cause
        return None

    # --- configuration ---------------------------------------------------------------------

    def apply(self) -> None:
        """Make the engine's pipelines those of the rows, or of their last good copy.

        The copy serves when the database is away at the start; once an engine has rows, a
        database that is away changes nothing and the watcher tries again.
        """
        engine = self._engine
        if engine is None:
            return
        with self._apply_lock:
            try:
                rows = list(SinkConfig.objects.all())
            except DatabaseProblem:
                if self._applied:
                    raise
                rows = snapshot.load()
                logger.warning(
                    "the control database is away; sinks are those of the last good copy",
                    extra={"sinks": [row.name for row in rows]},
                )
                engine.configure(_specs(rows))
                return
            specs = _specs(rows)
            gone = {one.key for one in engine.pipelines} - {spec.key for spec in specs}
            discarded = backlog.unwanted(gone)
            for key in discarded:
                # Before its pipeline retires: a pause ends with that, and all would be delivered.
                engine.discard(key)
            engine.configure(specs)
            for key in discarded:
                engine.discard(key)
            self._applied = rows_fingerprint(rows)
            snapshot.save(rows)
        logger.info("sinks configured", extra={"sinks": sorted(spec.name for spec in specs)})
        for spec in specs:
            if spec.misconfigured:
                logger.error("%s", spec.misconfigured, extra={"sink": spec.name})

    def _discard_for_gone(self) -> object:
        """End what adopted logs hold for sinks that were deleted; the disabled keep theirs."""
        engine = self._engine
        unclaimed = engine.unclaimed_sinks() if engine is not None else set()
        if engine is None or not unclaimed:
            return heart.NOT_ASKED
        known = {str(key) for key in SinkConfig.objects.values_list("pk", flat=True)}
        known |= {sink.key for sink in internal_sinks()}
        for key in unclaimed - known:
            logger.warning("a log that was adopted holds records for a sink that was deleted")
            engine.discard(key)
        return None

    def _fingerprint(self) -> str:
        return rows_fingerprint(SinkConfig.objects.all())

    # --- requests of other processes -------------------------------------------------------

    def _flush(self, args: dict[str, Any]) -> dict[str, Any]:
        settled = self.engine.flush(_seconds(args))
        return {"settled": settled, "ledger": self.stats()["ledger"]}

    def _drain(self, args: dict[str, Any]) -> dict[str, Any]:
        self._draining = True
        with drainwatch.telling(self.engine, clock=self._clock, say=self._on_report):
            settled = self.engine.drain(_seconds(args))
        return {"settled": settled, "ledger": closed(self.stats())["ledger"]}

    def _discard(self, args: dict[str, Any]) -> dict[str, Any]:
        """Drop what waits for the sink whose row's key is `sink`; a key that is unknown is fine."""
        engine = self._engine
        if engine is not None:
            # First its row is seen to be gone, or more would come in after the discarding.
            self.apply()
            engine.discard(str(args["sink"]))
        return {"ledger": self.stats().get("ledger", [])}


def _specs(rows: Iterable[SinkConfig]) -> list[PipelineSpec]:
    """What the engine is told: the enabled rows, and the sinks that apps have for themselves."""
    specs = [spec_for(row) for row in rows if row.enabled]
    return specs + [sink.spec() for sink in internal_sinks()]


def _log_settings() -> LogSettings:
    """The engine's settings of the log, of this installation's."""
    log = settings.COLLECTOR.log
    return LogSettings(
        directory=settings.COLLECTOR.wal_directory,
        fsync=log.fsync,
        fsync_interval_s=log.fsync_interval_s,
        segment_bytes=log.segment_bytes,
        cache_bytes=log.cache_bytes,
        max_bytes=log.max_bytes,
        adopt_every_s=log.adopt_every_s,
    )


def _seconds(args: dict[str, Any]) -> float:
    deadline = args.get("deadline_s", settings.COLLECTOR.server.stop_deadline_s)
    return min(max(float(deadline), 0.0), 3600.0)


_service = SinkService()


def current() -> SinkService:
    """This process's service."""
    return _service
