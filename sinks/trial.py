"""The operator's question "does it work?": a sink made from a row, opened, tried, closed.

Runs in a request thread of the admin, on a sink object of its own: the pipeline is not touched.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import msgspec

from pipeline.errors import SinkError
from pipeline.ids import first_id_at
from pipeline.record import INFO, Batch, Record
from pipeline.runtime.clock import Clock, SystemClock
from sinks.configuration import build_sink
from sinks.guard import GuardedSink
from sinks.handmade import make_batch, make_part
from sinks.models import SinkConfig
from sinks.registry import BackendError

SERVICE = "collector-sink-test"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it, in a sentence."""

    works: bool
    text: str


def try_sink(row: SinkConfig, *, clock: Clock | None = None) -> Answer:
    """Open the row's sink, and write a marked record where the sink can take it back."""
    try:
        sink = build_sink(row)
    except BackendError as error:
        return Answer(False, str(error))
    guarded = GuardedSink(sink)
    try:
        guarded.open()
        if not sink.supports_probe:
            return Answer(
                True, f"{row.name} was opened; it cannot be tried without keeping a record."
            )
        return Answer(True, guarded.probe(marked_batch(row, clock or SystemClock())))
    except SinkError as error:
        return Answer(False, str(error))
    except Exception as error:  # a third party's sink may fail in any way
        return Answer(False, f"{type(error).__name__}: {error}")
    finally:
        try:
            guarded.close()
        except Exception:  # noqa: S110 - the answer is about writing
            pass


def marked_batch(row: SinkConfig, clock: Clock) -> Batch:
    """One record that says what it is, of a type that the sink takes."""
    now_us = clock.time_us()
    taken = sorted(row.route_types)
    payload = {"service": SERVICE, "message": "a trial by an operator; not a real record"}
    record = Record(
        timestamp_us=now_us,
        severity=INFO,
        service=SERVICE,
        message=payload["message"],
        trace_id="",
        span_id="",
        payload=msgspec.json.encode(payload),
        id=first_id_at(now_us),
    )
    part = make_part(
        [record],
        type=taken[0] if taken else "log",
        tenant=row.route_tenants[0] if row.route_tenants else "default",
        received_us=now_us,
    )
    return make_batch([part], log_id=f"trial-{uuid.uuid4().hex}", sink=str(row.pk))
