"""The internal sink `flips`: changes of status into the control database, exactly once.

`write` runs on the pipeline's one worker in each process; `_lock` guards which connection it is
writing on, so that `abort`, from any thread, can cut it.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
from django.db import DatabaseError, IntegrityError, InterfaceError, connection

from healthmon.truth import store
from healthmon.truth.changes import Change, change_of
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, NEW, PAUSED, UNKNOWN, UP
from healthmon.truth.metrics import metrics
from healthmon.truth.moments import LAST_US, at
from healthmon.truth.store import Arrived, Tally
from pipeline.errors import PartialFailure, RetryableError, SinkError
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.deadletters.store import own_connection
from sinks.options import NoOptions
from sinks.postgresql import sqlstate
from sinks.sqlite import errors as sqlite_errors

logger = logging.getLogger(__name__)

BATCH_RECORDS = 1_000
REUSED_S = 5.0
CANCEL_S = 2.0
_STATUSES = frozenset({NEW, UP, DEGRADED, DOWN, UNKNOWN, PAUSED, MAINTENANCE})
_BIGGEST = 2**63 - 1
_DOING = "storing changes of status"


class FlipsSink(BaseSink[NoOptions]):
    """Flips, states of targets and incidents."""

    label = "Changes of status"
    supports_concurrent_writes = False
    supports_exactly_once = True
    supports_partial_failure = True
    max_batch_records = BATCH_RECORDS

    def __init__(self, options: NoOptions | None = None, *, name: str = "flips") -> None:
        super().__init__(options or NoOptions(), name=name)
        self._lock = threading.Lock()
        self._writing: Any = None

    def write(self, batch: Batch) -> Written:
        arrivals, failures = _read(batch)
        with self._own_connection():
            tally = store.keep(arrivals)
        _count(tally)
        if failures:
            raise PartialFailure(failures, already_stored=tally.already)
        # One that is fenced or superseded, or whose target is gone, has ended as it should.
        return Written(stored=len(arrivals) - tally.already, already_stored=tally.already)

    def abort(self) -> None:
        # Under the lock, so that the connection is still this write's and nobody else's.
        with self._lock:
            if isinstance(self._writing, sqlite3.Connection):
                self._writing.interrupt()
            elif self._writing is not None:
                _cut(self._writing)

    @contextmanager
    def _own_connection(self) -> Iterator[None]:
        try:
            with own_connection(reuse_s=REUSED_S):
                connection.ensure_connection()
                with self._lock:
                    self._writing = connection.connection
                try:
                    yield
                finally:
                    with self._lock:
                        self._writing = None
        except (DatabaseError, InterfaceError) as error:
            raise _sink_error(error) from error


def _read(batch: Batch) -> tuple[list[Arrived], dict[int, str]]:
    """The changes, and by their index those that can never be stored."""
    arrivals: list[Arrived] = []
    failures: dict[int, str] = {}
    index = 0
    for part in batch.parts:
        for record in part.records:
            try:
                change = change_of(record.payload)
            except msgspec.DecodeError as error:
                failures[index] = f"this is not a change of status: {error}"
            else:
                problem = _problem(change)
                if problem:
                    failures[index] = problem
                else:
                    arrivals.append(Arrived(change, part.received_us))
            index += 1
    return arrivals, failures


def _problem(change: Change) -> str:
    """What no checker writes and no database takes."""
    if not {change.from_status, change.to_status} <= _STATUSES:
        return f"there is no status {change.from_status!r} or {change.to_status!r}"[:200]
    if not (0 <= change.at_us <= LAST_US and 0 <= change.cert_expires_us <= LAST_US):
        return "the time of this change is outside the years 1970 to 9999"
    if not (0 < change.seq <= _BIGGEST and 0 < change.target_id <= _BIGGEST):
        return "the number of this change, or of its target, is out of range"
    if not 0 <= change.epoch <= _BIGGEST:
        return "the epoch of this change is out of range"
    return ""


def _count(tally: Tally) -> None:
    counters = metrics()
    for status, count in tally.stored.items():
        counters.stored.labels(status).inc(count)
    if tally.fenced:
        counters.fenced.inc(tally.fenced)
    if tally.superseded:
        counters.dropped.labels("superseded").inc(len(tally.superseded))
        first = tally.superseded[0]
        logger.warning(
            "changes of status were decided twice, by a checker and by its successor; "
            "those that came second are not stored",
            extra={
                "changes": len(tally.superseded),
                "target": first.target,
                "change": f"{first.from_status} -> {first.to_status}",
                "at": at(first.at_us).isoformat(),
                "checker": first.checker,
                "reason": first.reason[:200],
            },
        )
    if tally.gone:
        counters.dropped.labels("target_deleted").inc(tally.gone)


def _sink_error(error: Exception) -> SinkError:
    """Whose fault it is.

    A broken constraint is the moment's: a target that was deleted while its flip was written, or
    another deliverer of the same flip; the next attempt sees what has become.
    """
    if isinstance(error, IntegrityError):
        return RetryableError(f"{_DOING}: {error.__cause__ or error}")
    cause = error.__cause__
    if isinstance(cause, psycopg.Error):
        return sqlstate.as_sink_error(cause, doing=_DOING)
    if isinstance(cause, sqlite3.Error):
        return sqlite_errors.as_sink_error(cause, doing=_DOING)
    return RetryableError(f"{_DOING}: {type(error).__name__}: {error}")


def _cut(raw: Any) -> None:
    """The statement under way ends, on the server where that hears of it, else at its socket.

    A server that goes on would hold the states' rows against the next attempt.
    """
    with suppress(psycopg.Error):
        raw.cancel_safe(timeout=CANCEL_S)
    try:
        with socket.socket(fileno=os.dup(raw.fileno())) as peer:
            peer.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # closed by itself meanwhile
