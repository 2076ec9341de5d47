"""The law of conservation, checked every second in each process that has an engine.

A ledger that does not balance for five seconds is an alarm: an error line when it begins and one
when it ends, the metric `ledger_alarm`, and a problem on the dashboard by way of the process's
figures.  Each log (this process's own, and those it has adopted), sink and tenant has its own.

The checks run on the thread "conservation", not on the heart's, which waits for databases that do
not answer.  `_condition` guards the thread's coming and going, `_lock` the alarms; neither is held
while the figures are read or a line is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from control.ports.stats import register_stats_part
from pipeline.runtime.clock import Clock, SystemClock
from sinks.metrics import metrics
from sinks.metricset import Metrics
from sinks.service import ROLES_WITHOUT_ENGINE
from sinks.service import current as sink_service

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
ALARM_AFTER_S = 5.0
# Before the pipelines and, at the stop, after them: their end is watched too.
ORDER = 49
LARGEST_TOLD = 50

Place = tuple[str, str, str]
"""A log's id, a sink's name and a tenant: one row of a ledger."""


@dataclass(slots=True, kw_only=True)
class Imbalance:
    """A row that does not balance: by how many records now, since when, whether it was told."""

    records: int
    since_s: float
    since_us: int
    alarmed: bool = False


class ConservationWatch:
    """Follows the imbalances from check to check; used by one thread, read by any."""

    def __init__(self, *, clock: Clock, into: Metrics | None = None) -> None:
        self._clock = clock
        self._into = into
        self._lock = threading.Lock()
        self._open: dict[Place, Imbalance] = {}
        self._gauged: set[str] = set()

    def check(self, stats: Mapping[str, Any]) -> None:
        """Compare what the engine says of itself with what it said before."""
        now_s, now_us = self._clock.monotonic(), self._clock.time_us()
        found = {
            (log_id, str(row["sink"]), str(row["tenant"])): int(row["imbalance"])
            for log_id, rows in _ledgers(stats)
            for row in rows
            if row["imbalance"]
        }
        begun, ended = [], []
        with self._lock:
            for place in self._open.keys() - found.keys():
                gone = self._open.pop(place)
                if gone.alarmed:
                    ended.append((place, gone))
            for place, records in found.items():
                one = self._open.setdefault(
                    place, Imbalance(records=records, since_s=now_s, since_us=now_us)
                )
                one.records = records
                if not one.alarmed and now_s - one.since_s >= ALARM_AFTER_S:
                    one.alarmed = True
                    begun.append((place, one))
            alarmed = {place[1] for place, one in self._open.items() if one.alarmed}
            calm, self._gauged = self._gauged - alarmed, self._gauged | alarmed
        into = self._into or metrics()
        for sink in alarmed:
            into.ledger_alarm.labels(sink).set(1)
        for sink in calm:
            into.ledger_alarm.labels(sink).set(0)
        for place, one in begun:
            logger.error(
                "the ledger does not balance: records are neither ended nor held anywhere",
                extra=_about(place, one),
            )
        for place, one in ended:
            # Also at ERROR: whoever was woken by the first line looks for the second.
            logger.error("the ledger balances again", extra=_about(place, one))

    def alarms(self) -> list[dict[str, Any]]:
        """Each alarm with its place, the largest first, as plain JSON values."""
        with self._lock:
            alarmed = [(place, one) for place, one in self._open.items() if one.alarmed]
            alarmed.sort(key=lambda item: -abs(item[1].records))
            return [
                {
                    "kind": "imbalance",
                    "sink": sink,
                    "tenant": tenant,
                    "records": one.records,
                    "since": one.since_us / 1e6,
                    "log_id": log_id,
                }
                for (log_id, sink, tenant), one in alarmed[:LARGEST_TOLD]
            ]


class ConservationService:
    """The thread that checks, from the start of a process's services to their stop."""

    name = "conservation"
    order = ORDER

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        stats: Callable[[], Mapping[str, Any]] | None = None,
        into: Metrics | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._stats = stats or sink_service().stats
        self._into = into
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failing = ""
        self._watch = ConservationWatch(clock=self._clock, into=self._into)

    def start(self, role: str) -> None:
        if role in ROLES_WITHOUT_ENGINE:
            return
        with self._condition:
            if self._thread is not None:
                return
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="conservation", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> None:
        with self._condition:
            thread, self._stopping = self._thread, True
            self._condition.notify_all()
        if thread is not None:
            thread.join(deadline_s)
            with self._condition:
                self._thread = None

    def after_fork(self) -> None:
        """The parent's thread does not exist here, nor do its imbalances."""
        self._reset()

    def register_ports(self) -> None:
        register_stats_part("alarms", self.alarms)

    def alarms(self) -> list[dict[str, Any]]:
        return self._watch.alarms()

    def check(self) -> None:
        """Look once; a failure to look is told once, and looked again."""
        try:
            self._watch.check(self._stats())
        except Exception as error:
            kind = type(error).__name__
            if kind != self._failing:
                logger.exception("the ledger could not be checked")
            self._failing = kind
        else:
            self._failing = ""

    def _run(self) -> None:
        while True:
            self.check()
            due = self._clock.monotonic() + CHECK_INTERVAL_S
            with self._condition:
                while not self._stopping and (left := due - self._clock.monotonic()) > 0:
                    self._clock.wait(self._condition, left)
                if self._stopping:
                    return


def _ledgers(stats: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[Mapping[str, Any]]]]:
    """The ledger of this process's log, and those of the logs that it has adopted."""
    yield str(stats.get("log_id", "")), stats.get("ledger") or ()
    for one in (stats.get("log") or {}).get("adopted") or ():
        yield str(one.get("log_id", "")), one.get("ledger") or ()


def _about(place: Place, one: Imbalance) -> dict[str, Any]:
    log_id, sink, tenant = place
    return {
        "sink": sink,
        "tenant": tenant,
        "records": one.records,
        "since": one.since_us / 1e6,
        "log_id": log_id,
    }


_service = ConservationService()


def current() -> ConservationService:
    """This process's service."""
    return _service
