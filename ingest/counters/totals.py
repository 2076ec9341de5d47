"""How increments become rows: one a counter with its value, and one a counter and minute.

A minute is that of arrival, so that a batch brings one or two of them whatever its senders dated,
and the chart of a counter stays true when they are wrong.  Runs in the sinks' worker threads; the
digests of recent counters are remembered, in a cache that guards itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from django.conf import settings

from control.ports.merging import (
    Chosen,
    KeyLimit,
    MergedRow,
    MergedTable,
    MergeSpec,
    register_merge,
)
from control.ports.tables import Column
from ingest.wire.counters import read_increment
from pipeline.batching.coalescer import Coalescer, Sum

MINUTE_US = 60_000_000
OVERFLOW = "collector.overflow"
"""The counter of a tenant that takes what would be a counter beyond its number."""
NO_LABELS = "{}"

Counted = Coalescer[tuple[str, str]]

COUNTERS = MergedTable(
    table="ingest_counter",
    columns=(
        Column("key", "text"),
        Column("tenant", "text"),
        Column("name", "text"),
        Column("labels", "jsonb"),
        Column("value", "int8"),
        Column("increments", "int8"),
        Column("first_at", "timestamptz"),
        Column("last_at", "timestamptz"),
    ),
    key=("key",),
    sums=("value", "increments"),
    lowest=("first_at",),
    highest=("last_at",),
)
POINTS = MergedTable(
    table="ingest_counterpoint",
    columns=(
        Column("counter", "text"),
        Column("minute", "timestamptz"),
        Column("added", "int8"),
        Column("increments", "int8"),
    ),
    key=("counter", "minute"),
    sums=("added", "increments"),
    ends="minute",
)


@lru_cache(maxsize=20_000)
def key_of(tenant: str, name: str, labels: str) -> str:
    """The row of a counter: a digest, as a name with its labels can be several kilobytes."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (tenant, name, labels):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.hexdigest()


class _Span:
    """The increments of one tenant that arrived in one minute."""

    __slots__ = ("counted", "first_us", "last_us", "payloads")

    def __init__(self, received_us: int) -> None:
        self.counted = Counted(read=read_increment)
        self.payloads: list[bytes] = []
        self.first_us = self.last_us = received_us


def rows(chosen: Chosen) -> tuple[list[MergedRow], list[MergedRow]]:
    """The rows of both tables."""
    spans: dict[tuple[str, int], _Span] = {}
    for part, records in chosen:
        if not records:
            continue
        received = part.received_us
        at = (part.tenant, received - received % MINUTE_US)
        span = spans.get(at)
        if span is None:
            span = spans[at] = _Span(received)
        span.first_us = min(span.first_us, received)
        span.last_us = max(span.last_us, received)
        span.payloads += [record.payload for record in records]
    for span in spans.values():
        span.counted.add(span.payloads)
    return _counters(spans.items()), _points(spans.items())


def _counters(spans: Iterable[tuple[tuple[str, int], _Span]]) -> list[MergedRow]:
    totals: dict[tuple[str, str, str], Sum] = {}
    times: dict[tuple[str, str, str], tuple[int, int]] = {}
    for (tenant, _), span in spans:
        for (name, labels), added in span.counted.sums.items():
            counter = (tenant, name, labels)
            total = totals.setdefault(counter, Sum())
            total.total += added.total
            total.count += added.count
            first, last = times.get(counter, (span.first_us, span.last_us))
            times[counter] = (min(first, span.first_us), max(last, span.last_us))
    return [
        (
            key_of(*counter),
            counter[0],
            counter[1],
            counter[2].encode(),
            total.total,
            total.count,
            *times[counter],
        )
        for counter, total in totals.items()
    ]


def _points(spans: Iterable[tuple[tuple[str, int], _Span]]) -> list[MergedRow]:
    return [
        (key_of(tenant, name, labels), minute, added.total, added.count)
        for (tenant, minute), span in spans
        for (name, labels), added in span.counted.sums.items()
    ]


def overflow(row: MergedRow) -> MergedRow:
    """The row of the tenant's overflow counter, with what this one would have added."""
    tenant = str(row[1])
    key = key_of(tenant, OVERFLOW, NO_LABELS)
    return (key, tenant, OVERFLOW, NO_LABELS.encode(), *row[4:])


def most_counters() -> int:
    most: int = settings.COLLECTOR.ingest.max_counters
    return most


MERGE = MergeSpec(
    record_type="counter",
    tables=(COUNTERS, POINTS),
    rows=rows,
    limit=KeyLimit(owner="tenant", most=most_counters, overflow=overflow),
)


def register() -> None:
    register_merge(MERGE)
