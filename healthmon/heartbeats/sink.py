"""The sinks of heartbeats: pings of secret addresses, and what services say to /health.

Two flows rather than one.  A ping was promised to be kept, so that its sink is required; of a
service's word on its health only the newest matters, and a control database that is away must not
keep /health from taking more: that one is optional.  The id of a record makes storing it twice
harmless.  Written by one worker thread each; `_lock` guards the connection that it is using, which
`abort` cuts.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
from django.db import DatabaseError, InterfaceError, ProgrammingError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from control.databases.causes import cause_of, is_unprepared
from control.processes.heart import drop_stale_connections
from healthmon.heartbeats import metrics
from healthmon.heartbeats.index import IndexUnknown, index
from healthmon.heartbeats.pings import DEGRADED, FAIL, PING, SUCCESS, ping_of
from healthmon.heartbeats.store import Arrived, PingStore
from pipeline.errors import PartialFailure, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.settings import PipelineSettings
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.internal import InternalSink, register_internal_sink, register_internal_type
from sinks.options import NoOptions

logger = logging.getLogger(__name__)

PINGS, HEALTH_PINGS = "heartbeats", "heartbeats-health"
HEALTH = "health"  # the record type
MAX_RECORDS = 1_000
MAX_WAIT_S = 0.1
# Most of these are looked at and left alone: few large batches cost least.
HEALTH_WAIT_S = 0.5
HEALTH_CAPACITY = 200_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KIND_OF_STATUS = {"up": SUCCESS, "degraded": DEGRADED, "down": FAIL}


class _Told(msgspec.Struct):
    latency_ms: float | None = None


_told = msgspec.json.Decoder(_Told).decode


def _moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)


class StoringSink(BaseSink[NoOptions]):
    """What both have in common: one batch, one transaction of the control database."""

    supports_concurrent_writes: bool = False
    supports_exactly_once: bool = True
    supports_partial_failure: bool = True

    def __init__(self) -> None:
        super().__init__(NoOptions(), name=self.label)
        self._store = PingStore()
        self._lock = threading.Lock()
        self._using: BaseDatabaseWrapper | None = None

    def abort(self) -> None:
        with self._lock:
            using = self._using
            connection = using.connection if using is not None else None
        # Both drivers can end a statement from another thread.
        for name in ("cancel", "interrupt"):
            stop = getattr(connection, name, None)
            if stop is not None:
                stop()

    def _stored(self, arrived: list[Arrived], count: int) -> Written:
        """Store them; `count` records of the batch are done with by that."""
        if not arrived:
            return Written(stored=count)
        with self._database():
            taken = self._store.take(arrived)
        if taken.homeless:
            metrics.ignored().labels("target_gone").inc(taken.homeless)
            logger.info("pings of targets that are gone", extra={"pings": taken.homeless})
        return Written(stored=count - taken.known, already_stored=taken.known)

    @contextmanager
    def _database(self) -> Iterator[None]:
        drop_stale_connections()
        with self._lock:
            self._using = connections["default"]
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            if isinstance(error, ProgrammingError) or is_unprepared(error):
                raise SinkFault(f"the control database: {cause_of(error)}") from error
            raise RetryableError(f"the control database: {cause_of(error)}") from error
        finally:
            with self._lock:
                self._using = None
            drop_stale_connections()


class PingSink(StoringSink):
    label: ClassVar[str] = "Pings of heartbeat targets"
    max_batch_records: int | None = MAX_RECORDS

    def write(self, batch: Batch) -> Written:
        arrived: list[Arrived] = []
        failures: dict[int, str] = {}
        at = 0
        for part in batch.parts:
            received = _moment(part.received_us)
            for record in part.records:
                try:
                    ping = ping_of(record.payload)
                except msgspec.DecodeError as error:
                    failures[at] = f"this is no ping: {error}"[:300]
                else:
                    arrived.append(
                        Arrived(
                            record_id=record.id,
                            target_id=ping.target_id,
                            at=received,
                            kind=ping.kind,
                            exit_code=ping.exit_code,
                            remote=ping.remote,
                            body=ping.body,
                        )
                    )
                at += 1
        written = self._stored(arrived, len(arrived))
        if failures:
            raise PartialFailure(failures, already_stored=written.already_stored)
        return written


class HealthSink(StoringSink):
    label: ClassVar[str] = "Services' word on their health"

    def write(self, batch: Batch) -> Written:
        try:
            services = index().services()
        except IndexUnknown:
            raise RetryableError("the heartbeat targets are not known yet") from None
        arrived: list[Arrived] = []
        if services:
            for part in batch.parts:
                received, tenant = _moment(part.received_us), part.tenant
                # Most services are nobody's target: one look is all that they cost.
                matched = [record for record in part.records if record.service in services]
                arrived += [
                    _arrived(record, one.id, received)
                    for record in matched
                    for one in services[record.service]
                    if one.tenant in ("", tenant)
                ]
        known = self._stored(arrived, batch.count).already_stored if arrived else 0
        return Written(stored=batch.count - known, already_stored=known)


def _arrived(record: Any, target_id: int, at: datetime) -> Arrived:
    try:
        latency = _told(record.payload).latency_ms
    except msgspec.DecodeError:
        latency = None
    return Arrived(
        record_id=record.id,
        target_id=target_id,
        at=at,
        kind=_KIND_OF_STATUS.get(record.message, FAIL),
        duration_ms=latency,
    )


def _tune_pings(defaults: PipelineSettings) -> PipelineSettings:
    return dataclasses.replace(
        defaults, max_records=min(defaults.max_records, MAX_RECORDS), max_wait_s=MAX_WAIT_S
    )


def _tune_health(defaults: PipelineSettings) -> PipelineSettings:
    capacity = max(defaults.max_records, min(defaults.capacity_records, HEALTH_CAPACITY))
    return dataclasses.replace(defaults, capacity_records=capacity, max_wait_s=HEALTH_WAIT_S)


def register_sinks() -> None:
    register_internal_type(PING)
    register_internal_sink(
        InternalSink(name=PINGS, types=frozenset({PING}), make=PingSink, tune=_tune_pings)
    )
    register_internal_sink(
        InternalSink(
            name=HEALTH_PINGS,
            types=frozenset({HEALTH}),
            make=HealthSink,
            required=False,
            listens=True,
            tune=_tune_health,
        )
    )
