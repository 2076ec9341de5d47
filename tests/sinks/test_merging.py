"""Merged tables: increments become sums once, on either database, whatever becomes of a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.record import Batch, Record
from tests.sinks.records import batch, record

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    from sinks.backends.database import DatabaseOptions, DatabaseSink

    made = []

    def make(**options: Any) -> Any:
        made.append(DatabaseSink(DatabaseOptions(**options), name="database"))
        made[-1].open()
        return made[-1]

    yield make
    for sink in made:
        sink.close()


@pytest.fixture
def sink(make: Callable[..., Any]) -> Any:
    return make()


def increment(name: str = "orders", by: int = 1, **labels: Any) -> Record:
    payload = {"counter": name, "by": by, "labels": labels}
    return record(json.dumps(payload).encode(), message=name)


def increments(*sent: Record, **options: Any) -> Batch:
    return batch(sent, type="counter", **options)


def totals() -> dict[tuple[str, str, str], int]:
    from ingest.models import Counter

    return {
        (row.tenant, row.name, json.dumps(row.labels, sort_keys=True)): row.value
        for row in Counter.objects.all()
    }


def value(name: str = "orders") -> int:
    return sum(total for (_, known, _), total in totals().items() if known == name)


def test_increments_become_one_row_a_counter_and_one_a_minute(sink):
    from ingest.models import Counter, CounterPoint

    sent = increments(*[increment("orders") for _ in range(500)], increment("visits", 7))
    written = sink.write(sent)
    assert (written.stored, written.already_stored) == (501, 0)
    assert totals() == {("default", "orders", "{}"): 500, ("default", "visits", "{}"): 7}
    row = Counter.objects.get(name="orders")
    assert (row.increments, row.first_at, row.last_at) == (500, row.first_at, row.first_at)
    (point,) = CounterPoint.objects.filter(counter=row.key)
    assert (point.added, point.increments) == (500, 500)
    assert point.minute.isoformat() == "2026-09-21T14:13:00+00:00"


def test_a_batch_that_is_sent_again_adds_nothing(sink, make):
    sent = increments(*[increment() for _ in range(10)])
    sink.write(sent)
    assert sink.write(sent).already_stored == 10
    assert make().write(sent).already_stored == 10
    assert value() == 10
