"""Merged tables: increments become sums once, on either database, whatever becomes of a batch."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control.ports.merging import MAX_TOTAL, MergedTable
from control.ports.tables import Column
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.record import Batch, Record
from sinks.handmade import make_batch, make_part
from sinks.merging import KnownKeys, merge_rows
from tests.servers.proxy import postgres_proxy
from tests.sinks.contract import WAIT_S
from tests.sinks.records import ARRIVAL_US, batch, record, records

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE_US = 60_000_000
_numbers = itertools.count(910_002)


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """Makes sinks of this installation's database; `closing` ends each of their transactions."""
    from sinks.backends.database import DatabaseOptions, DatabaseSink

    made = []

    def make(closing: Callable[[Batch], str] = lambda batch: "", **options: Any) -> Any:
        sink = DatabaseSink(DatabaseOptions(**options), name="database")
        sink.closing = closing  # type: ignore[method-assign, assignment]
        made.append(sink)
        sink.open()
        return sink

    yield make
    for sink in made:
        sink.close()


@pytest.fixture
def sink(make: Callable[..., Any]) -> Any:
    return make()


@pytest.fixture
def at_most(settings: Any) -> Callable[[int], None]:
    def at_most(counters: int) -> None:
        ingest = dataclasses.replace(settings.COLLECTOR.ingest, max_counters=counters)
        settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, ingest=ingest)

    return at_most


def on_postgresql() -> bool:
    from django.db import connections

    return connections["records"].vendor == "postgresql"


def increment(name: str = "orders", by: int = 1, **more: Any) -> Record:
    payload = {"counter": name, "by": by, "labels": {}, **more}
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
    """What the counters of this name came to; their points must say the same."""
    from ingest.models import Counter, CounterPoint

    rows = list(Counter.objects.filter(name=name))
    points = CounterPoint.objects.filter(counter__in=[row.key for row in rows])
    total = sum(row.value for row in rows)
    assert sum(point.added for point in points) == total
    assert sum(point.increments for point in points) == sum(row.increments for row in rows)
    return total


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


def test_tenant_name_and_labels_make_a_counter(sink):
    sink.write(
        increments(
            increment("a", labels={"x": "1", "y": 2}),
            increment("a", labels={"y": "2", "x": 1}),
            increment("a", labels={"x": "1"}),
            increment("a"),
        )
    )
    sink.write(increments(increment("a"), tenant="acme"))
    assert totals() == {
        ("default", "a", '{"x": "1", "y": "2"}'): 2,
        ("default", "a", '{"x": "1"}'): 1,
        ("default", "a", "{}"): 1,
        ("acme", "a", "{}"): 1,
    }


def test_points_are_of_the_minute_of_arrival(sink):
    from ingest.models import Counter, CounterPoint

    dated = increment()
    dated.timestamp_us = 0
    sink.write(increments(dated, increment(by=4)))
    sink.write(increments(increment(by=-2), received_us=ARRIVAL_US + MINUTE_US))
    sink.write(increments(increment(by=9), received_us=ARRIVAL_US - 5 * MINUTE_US))
    points = CounterPoint.objects.order_by("minute").values_list("minute", "added")
    assert [(f"{at:%H:%M}", added) for at, added in points] == [
        ("14:08", 9),
        ("14:13", 5),
        ("14:14", -2),
    ]
    row = Counter.objects.get()
    assert (row.value, row.increments) == (12, 4)
    assert (row.last_at - row.first_at).total_seconds() == 6 * 60


def test_a_batch_of_several_minutes_and_tenants_is_one_row_a_counter(sink):
    parts = [
        make_part(
            [increment() for _ in range(3)],
            type="counter",
            tenant=tenant,
            received_us=ARRIVAL_US + minute * MINUTE_US,
        )
        for tenant in ("a", "b")
        for minute in range(3)
    ]
    sink.write(make_batch(parts, number=910_001))
    assert totals() == {("a", "orders", "{}"): 9, ("b", "orders", "{}"): 9}
    assert value() == 18


def test_a_million_increments_are_a_hundred_rows_a_flush(make):
    """What reaches the database: the rows that the sink's statements carry."""
    from ingest.counters.totals import MERGE

    flushes: list[int] = []
    rows_of = MERGE.rows

    def counted(chosen: Any) -> Any:
        rows = rows_of(chosen)
        flushes.append(sum(map(len, rows)))
        return rows

    sink = make()
    sink.close()
    spec = dataclasses.replace(MERGE, rows=counted)
    sink.find_merge = lambda record_type: spec
    sink.open()
    same = [increment(f"c{n}") for n in range(100)] * 100
    for _ in range(100):
        sink.write(increments(*same))
    assert len(flushes) == 100
    assert set(flushes) == {200}  # a row each for the counter and for its minute
    found = totals()
    assert len(found) == 100
    assert set(found.values()) == {10_000}


def test_records_and_increments_commit_together(sink):
    from ingest.models import LogRecord

    def mixed(bad: bool) -> Batch:
        logs = records(20)
        if bad:
            logs[7].message = None  # type: ignore[assignment]
        parts = [
            make_part([increment()], type="counter", received_us=ARRIVAL_US),
            make_part(logs, received_us=ARRIVAL_US),
            make_part([increment(by=2)], type="counter", received_us=ARRIVAL_US),
        ]
        return make_batch(parts, number=next(_numbers))

    assert sink.write(mixed(bad=False)).stored == 22
    assert (value(), LogRecord.objects.count()) == (3, 20)
    sent = mixed(bad=True)
    for _ in range(3):  # the deliverer heard, and tries the refused one again each time
        with pytest.raises(PartialFailure) as caught:
            sink.write(sent)
        assert list(caught.value.failures) == [8]
    assert (value(), LogRecord.objects.count()) == (6, 39)


def test_what_cannot_be_read_is_the_records_fault(sink):
    sent = increments(increment(), record(b'{"counter": [1]}'))
    with pytest.raises(PermanentError, match="cannot be added up"):
        sink.write(sent)
    assert totals() == {}


def test_a_trial_adds_nothing(sink):
    sink.write(increments(increment()))
    assert "ingest_counter" in sink.probe(increments(increment(), increment("new")))
    assert totals() == {("default", "orders", "{}"): 1}


def test_an_own_id_is_counted_once(make):
    sink = make(dedupe_by_id=True)
    sent = increments(
        increment(id="x"), increment(id="x"), increment(id="y", by=10), increment(by=100)
    )
    assert sink.write(sent).already_stored == 1
    assert value() == 111
    again = increments(increment(id="x"), increment(id="z", by=1_000))
    assert sink.write(again).already_stored == 1
    assert value() == 1_111


# --- exactly once ----------------------------------------------------------------------------


def test_a_transaction_that_fails_at_its_end_has_added_nothing(make):
    failing = [True]
    sink = make(closing=lambda batch: "SELECT nonsense" if failing[0] else "")
    sent = increments(*[increment() for _ in range(10)])
    with pytest.raises(SinkFault):
        sink.write(sent)
    assert totals() == {}
    failing.clear()
    failing.append(False)
    assert sink.write(sent).stored == 10
    assert sink.write(sent).already_stored == 10
    assert value() == 10


def test_a_batch_that_failed_halfway_is_finished_and_not_repeated(make):
    """On SQLite a batch is several transactions, each with a proof of its own."""
    from ingest.models import LogRecord

    ends = []

    def closing(sent: Batch) -> str:
        ends.append(sent)
        return "SELECT nonsense" if len(ends) == 2 else ""

    sink = make(closing=closing)
    parts = [
        make_part(records(1_500), received_us=ARRIVAL_US),
        make_part([increment() for _ in range(10)], type="counter", received_us=ARRIVAL_US),
    ]
    sent = make_batch(parts, number=next(_numbers))
    with contextlib.suppress(SinkFault):
        sink.write(sent)
    sink.write(sent)
    assert (value(), LogRecord.objects.count()) == (10, 1_500)


def test_many_writers_meet_on_the_same_counters(make):
    chance = random.Random(7)
    expected: Tally[str] = Tally()
    work: list[list[Batch]] = []
    for _ in range(4):
        batches = []
        for _ in range(12):
            names = [f"c{chance.randrange(40)}" for _ in range(200)]
            expected.update(names)
            batches.append(increments(*[increment(name) for name in names]))
        work.append(batches)
    failures: list[BaseException] = []
    sinks = [make() for _ in work]

    def write(sink: Any, batches: list[Batch]) -> None:
        try:
            for one in batches:
                sink.write(one)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=pair, daemon=True)
        for pair in zip(sinks, work, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert failures == []
    assert {name: total for (_, name, _), total in totals().items()} == dict(expected)


def test_an_answer_to_commit_that_is_lost_adds_nothing_twice(make):
    if not on_postgresql():
        pytest.skip("SQLite answers in this process")
    from sinks.postgresql.connections import Connections
    from sinks.postgresql.tables import PostgresTables
    from sinks.recordsdb import _conninfo

    sent = increments(*[increment() for _ in range(10)])
    with postgres_proxy(_conninfo()) as (through, proxy):
        zombie = PostgresTables(connections=Connections(conninfo=through, application_name="z"))
        zombie.open()
        held = proxy.hold_answer_to(b"COMMIT\0")
        errors: list[BaseException] = []

        def deliver() -> None:
            try:
                zombie.write(sent)
            except RetryableError as error:
                errors.append(error)

        first = threading.Thread(target=deliver, daemon=True)
        first.start()
        assert held.wait(WAIT_S)
        assert make().write(sent).already_stored == 10
        held.cut()
        first.join(WAIT_S)
        assert len(errors) == 1
        assert zombie.write(sent).already_stored == 10
        zombie.close()
    assert value() == 10


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_stops_at_its_limit(sink, sign):
    from django.utils import timezone

    from ingest.counters.totals import key_of
    from ingest.models import Counter

    Counter.objects.create(
        key=key_of("default", "orders", "{}"),
        tenant="default",
        name="orders",
        value=sign * (MAX_TOTAL - 5),
        increments=1,
        first_at=timezone.now(),
        last_at=timezone.now(),
    )
    for _ in range(2):
        sink.write(increments(increment(by=sign * 4)))
    assert Counter.objects.get().value == sign * MAX_TOTAL
    sink.write(increments(increment(by=-sign)))
    assert Counter.objects.get().value == sign * (MAX_TOTAL - 1)


def test_a_batch_whose_own_sum_is_too_large_stops_too(sink):
    from ingest.models import Counter

    sink.write(increments(*[increment(by=2**53 - 1) for _ in range(2_000)]))
    assert Counter.objects.get().value == MAX_TOTAL


def test_beyond_its_number_a_tenants_counters_are_counted_together(sink, make, at_most):
    at_most(3)
    sink.write(increments(*[increment(f"c{n}", by=10) for n in range(3)]))
    sink.write(increments(*[increment(f"c{n}") for n in range(6)]))
    for writer in (sink, make()):
        writer.write(increments(increment("c4"), increment("c0"), increment("new", by=5)))
    sink.write(increments(increment("c4"), tenant="acme"))
    assert totals() == {
        ("default", "c0", "{}"): 13,
        ("default", "c1", "{}"): 11,
        ("default", "c2", "{}"): 11,
        ("default", "collector.overflow", "{}"): 15,
        ("acme", "c4", "{}"): 1,
    }
    assert value("collector.overflow") == 15


def test_a_counter_that_is_deleted_makes_room(sink, at_most):
    from ingest.models import Counter

    at_most(1)
    sink.write(increments(increment("a"), increment("b")))
    Counter.objects.all().delete()
    sink.write(increments(increment("b")))
    assert set(totals()) == {("default", "b", "{}")}


def test_a_flood_of_names_leaves_as_many_rows_as_there_may_be(sink, at_most):
    at_most(50)
    for start in range(0, 2_000, 500):
        sink.write(increments(*[increment(f"c{n}") for n in range(start, start + 500)]))
    found = totals()
    assert len(found) == 51
    assert sum(found.values()) == 2_000


def test_the_keys_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr("sinks.merging._KNOWN", 3)
    known = KnownKeys()
    known.add("abcde")
    assert known.unknown("abcdef") == ["a", "b", "f"]


def test_rows_of_one_key_are_merged_as_the_database_does():
    table = MergedTable(
        table="t",
        columns=(
            Column("k", "text"), Column("n", "int8"), Column("a", "int8"), Column("z", "int8"),
            Column("x", "text"),
        ),
        key=("k",),
        sums=("n",),
        lowest=("a",),
        highest=("z",),
    )  # fmt: skip
    given = [("k", 1, 5, 5, "first"), ("l", 9, 9, 9, "l"), ("k", 2, 3, 7, "second")]
    assert merge_rows(table, given) == [("k", 3, 3, 7, "first"), ("l", 9, 9, 9, "l")]


@pytest.mark.parametrize(
    "wrong",
    [{"key": ("n",)}, {"sums": ("k",)}, {"sums": ("nosuch",)}, {"ends": "nosuch"}],
)
def test_a_table_that_cannot_be_merged_is_refused(wrong):
    good: dict[str, Any] = {"key": ("k",), "sums": ("n",)}
    columns = (Column("k", "text"), Column("n", "int8"))
    MergedTable(table="t", columns=columns, **good)
    with pytest.raises(ValueError, match="t: "):
        MergedTable(table="t", columns=columns, **(good | wrong))


# --- a process that is killed ----------------------------------------------------------------


@pytest.mark.parametrize("kill_at", range(4))
def test_a_process_killed_between_its_upserts_has_added_all_or_nothing(tmp_path, kill_at):
    path = tmp_path / "sums.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE sums (k text PRIMARY KEY, n bigint)")
    command = [sys.executable, "-c", KILLED, str(path)]
    root = Path(__file__).parents[2]
    killed = subprocess.run([*command, str(kill_at)], cwd=root, capture_output=True, timeout=WAIT_S)
    assert killed.returncode == -9, killed.stderr
    for expected in (["300", "0"], ["0", "300"]):
        done = subprocess.run([*command, "99"], cwd=root, capture_output=True, timeout=WAIT_S)
        assert done.stdout.decode().split() == expected, done.stderr
    with contextlib.closing(sqlite3.connect(path)) as found:
        assert found.execute("SELECT count(*), sum(n) FROM sums").fetchone() == (200, 300)


KILLED = """
import os, signal, sqlite3, sys
from django.conf import settings
settings.configure()
from control.ports.merging import MergedTable, MergeSpec, register_merge
from control.ports.tables import Column
from pipeline.record import Record
from sinks.handmade import make_batch, make_part
from sinks.sqlite.tables import SqliteTables

path, kill_at = sys.argv[1], int(sys.argv[2])
table = MergedTable(table="sums", columns=(Column("k", "text"), Column("n", "int8")),
                    key=("k",), sums=("n",))

def rows(chosen):
    sums = {}
    for part, records in chosen:
        for record in records:
            sums[record.service] = sums.get(record.service, 0) + 1
    return [list(sums.items())]

register_merge(MergeSpec(record_type="sum", tables=(table,), rows=rows))
seen = 0

def trace(statement):
    global seen
    if statement.startswith('INSERT INTO "sums"'):
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

def connect():
    connection = sqlite3.connect(path)
    connection.set_trace_callback(trace)
    return connection

records = [Record(timestamp_us=0, severity=9, service=f"s{n % 200}", message="m", trace_id="",
                  span_id="", payload=b"{}", id=n) for n in range(300)]
batch = make_batch([make_part(records, type="sum", received_us=0)], number=1)
written = SqliteTables(connect=connect).write(batch)
print(written.stored, written.already_stored)
"""
