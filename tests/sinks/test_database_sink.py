"""The sink into this installation's records database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from datetime import UTC, datetime

import pytest
from django.apps import apps
from django.db import connections, models, transaction

from control.ports.tables import Column, TableSpec, register_table, table_for, unregister_table
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from sinks.backends.database import DatabaseOptions, DatabaseSink
from sinks.sqlite import tables as sqlite_tables
from tests.sinks.contract import WAIT_S, SinkContract
from tests.sinks.records import ARRIVAL_US, batch, batch_of_parts, record, records

pytestmark = pytest.mark.django_db(transaction=True)

ON_POSTGRESQL = connections["records"].vendor == "postgresql"


def stored(name: str = "LogRecord") -> models.QuerySet:
    return apps.get_model("ingest", name).objects.using("records").order_by("id")


@pytest.fixture
def sink():
    sink = DatabaseSink(DatabaseOptions(), name="database")
    sink.open()
    yield sink
    sink.close()


class TestDatabaseSink(SinkContract):
    def make(self):
        return DatabaseSink(DatabaseOptions(), name="database")

    def stored_ids(self, sink):
        return list(stored().values_list("id", flat=True))


def test_a_record_is_read_back_as_it_was_sent(sink):
    sent = record(
        b'{"message":"gr\xc3\xbcn","price":1.10,"nested":{"a":[null,true]}}',
        service="web",
        message="grün 😀",
        timestamp_us=ARRIVAL_US - 123_456,
    )
    sent.trace_id, sent.span_id = "a" * 32, "b" * 16
    sink.write(batch([sent], tenant="acme"))
    found = stored().get()
    assert found.id == sent.id
    assert found.timestamp == datetime(2026, 9, 21, 14, 13, 19, 876_544, tzinfo=UTC)
    assert found.received_at == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert (found.tenant, found.level, found.service) == ("acme", "INFO", "web")
    assert (found.message, found.trace_id, found.span_id) == ("grün 😀", "a" * 32, "b" * 16)
    assert found.payload == {"message": "grün", "price": 1.1, "nested": {"a": [None, True]}}


def test_each_type_has_its_table_and_all_commit_together(sink):
    from sinks.handmade import make_batch, make_part

    log = record({})
    ping = record({"status": "up", "latency_ms": 12.5}, message="up")
    bare = record({"status": "down"}, message="down")
    event = record({"user_id": 7, "action": "login"}, message="login")
    parts = [
        make_part(group, type=type, received_us=ARRIVAL_US)
        for group, type in (([log], "log"), ([ping, bare], "health"), ([event], "event"))
    ]
    sink.write(make_batch(parts, number=900_001))
    assert stored().get().id == log.id
    assert list(stored("HealthPing").values_list("status", "latency_ms")) == [
        ("up", 12.5),
        ("down", None),
    ]
    assert stored("AuditEvent").values_list("user_id", "action").get() == ("7", "login")


def test_filters_find_times_that_the_sink_wrote(sink):
    whole = record({}, timestamp_us=ARRIVAL_US)
    fraction = record({}, timestamp_us=ARRIVAL_US + 1)
    sink.write(batch([whole, fraction]))
    at = datetime.fromtimestamp(ARRIVAL_US / 1e6, UTC)
    assert stored().get(timestamp=at).id == whole.id
    assert stored().filter(timestamp__gt=at).get().id == fraction.id


def test_a_bad_record_costs_only_itself(sink):
    sent = records(300)
    sent[17].message = None  # type: ignore[assignment]
    sent[200].timestamp_us = -(2**63)
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(sent))
    assert sorted(caught.value.failures) == [17, 200]
    assert stored().count() == 298


def test_a_record_with_an_id_that_is_taken_costs_only_itself(sink):
    first, second = records(3), records(3)
    sink.write(batch(first))
    second[1].id = first[1].id
    sent = batch(second)
    for _ in range(2):  # the second delivery reports the same
        with pytest.raises(PartialFailure) as caught:
            sink.write(sent)
        assert list(caught.value.failures) == [1]
    assert stored().count() == 5


def test_a_row_encoder_that_refuses_hands_the_batch_back(sink):
    with pytest.raises(PermanentError, match="does not fit"):
        sink.write(batch([record({"latency_ms": "slow"}, message="up")], type="health"))


def test_a_type_without_a_table_is_the_sinks_fault(sink):
    with pytest.raises(SinkFault, match="no table is registered"):
        sink.write(batch(records(1), type="nosuch"))


@contextlib.contextmanager
def registered(record_type: str, table: str):
    spec = TableSpec(
        record_type=record_type,
        table=table,
        columns=(Column("id", "int8"), Column("x", "text")),
        rows=lambda part: [(r.id, r.service) for r in part.records],
    )
    assert table_for(record_type) is None
    register_table(spec)
    try:
        yield
    finally:
        unregister_table(record_type)


def test_a_missing_table_is_the_sinks_fault_and_passes_when_it_is_made(sink):
    with registered("odd", "sinks_odd"):
        sent = batch(records(2), type="odd")
        with pytest.raises(SinkFault, match="sinks_odd"):
            sink.write(sent)
        with connections["records"].cursor() as cursor:
            cursor.execute("CREATE TABLE sinks_odd (id bigint, x text)")
        try:
            sink.write(sent)
        finally:
            with connections["records"].cursor() as cursor:
                cursor.execute("DROP TABLE sinks_odd")


def test_many_parts_fail_by_their_place_in_the_batch(sink):
    groups = [records(4), records(4), records(4)]
    groups[1][2].message = None  # type: ignore[assignment]
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch_of_parts(*groups))
    assert list(caught.value.failures) == [6]


def test_a_sink_that_is_not_open_says_so():
    with pytest.raises(SinkFault, match="not open"):
        DatabaseSink(DatabaseOptions()).write(batch(records(1)))


if ON_POSTGRESQL:

    def test_a_record_of_a_mebibyte_of_words_is_stored_and_found(sink):
        from control.admin.search import search

        text = " ".join(f"word{n:06}" for n in range(95_000))
        assert 1_000_000 < len(text) < 1 << 20
        sent = records(101)
        sent[50].message = text
        sink.write(batch(sent))
        assert stored().count() == 101
        with connections["records"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_indexes WHERE indexname LIKE '%%_search'")
            assert cursor.fetchone()[0] > 0, "no words index: the test proves nothing"
        found = search(stored(), "message", "word000007", indexed=True)
        assert [row.id for row in found] == [sent[50].id]
        assert list(stored().values_list("message", flat=True))[50] == text

    def test_a_partition_that_was_dropped_is_made_again(sink):
        from control import partitions

        sink.write(batch(records(1)))
        for partition in partitions.partitions("ingest_logrecord"):
            with connections["records"].cursor() as cursor:
                cursor.execute(f'DROP TABLE "{partition.name}"')
        sent = batch(records(1))
        with pytest.raises(RetryableError):
            sink.write(sent)
        sink.write(sent)
        assert stored().count() == 1

    def test_records_of_two_days_find_both_partitions(sink):
        from pipeline.ids import first_id_at

        sent = records(2)
        sent[1].id = first_id_at(ARRIVAL_US + 86_400_000_000)
        sink.write(batch(sent))
        assert stored().count() == 2

    def test_it_does_not_leave_connections_of_django_behind(sink):
        found = []

        def work():
            sink.write(batch(records(1)))
            found.append(connections["records"].connection)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT_S)
        assert found == [None]

    def test_a_connection_that_the_server_closed_is_replaced(sink):
        sink.write(batch(records(1)))
        with connections["records"].cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'collector sink database'"
                " AND datname = current_database()"
            )
        sink.write(batch(records(1)))
        assert stored().count() == 2

    def test_a_statement_that_takes_too_long_is_retried(sink):
        short = DatabaseSink(DatabaseOptions(statement_timeout_s=1), name="short")
        short.open()
        connection = connections["records"]
        with transaction.atomic(using="records"):
            with connection.cursor() as cursor:
                cursor.execute('LOCK TABLE "ingest_logrecord" IN ACCESS EXCLUSIVE MODE')
            errors = []

            def work():
                try:
                    short.write(batch(records(1)))
                except RetryableError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            thread.join(WAIT_S)
        assert len(errors) == 1
        short.close()

else:

    def test_sqlite_has_one_writer_and_short_transactions(sink):
        assert not sink.supports_concurrent_writes
        assert sink.max_batch_records == sqlite_tables.MAX_ROWS

    def test_a_batch_is_cut_into_transactions_and_a_repeat_finds_each(sink):
        sent = batch(records(2_500))
        assert sink.write(sent).stored == 2_500
        again = sink.write(sent)
        assert (again.stored, again.already_stored) == (0, 2_500)
        with connections["records"].cursor() as cursor:
            cursor.execute(
                f"SELECT count(*) FROM {sqlite_tables.PROOFS} WHERE log_id = %s AND number = %s",
                [sent.log_id, sent.number],
            )
            assert cursor.fetchone() == (3,)

    def test_a_locked_database_is_tried_again(sink, monkeypatch):
        connection = connections["records"]
        connection.ensure_connection()
        sink._store._connection.execute("PRAGMA busy_timeout = 1")
        sink._store._busy_s = 0.0
        sent = batch(records(1))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                with pytest.raises(RetryableError, match="locked"):
                    sink.write(sent)
            finally:
                cursor.execute("ROLLBACK")
        sink.write(sent)
        assert stored().count() == 1

    def test_a_database_file_that_cannot_be_opened_is_the_sinks_fault(tmp_path):
        store = sqlite_tables.SqliteTables(
            connect=lambda: sqlite3.connect(tmp_path / "nosuch" / "x.sqlite3")
        )
        with pytest.raises(SinkFault, match="unable to open"):
            store.open()

    def test_a_row_that_breaks_a_constraint_costs_only_itself(sink):
        with registered("odd", "sinks_odd"):
            with connections["records"].cursor() as cursor:
                cursor.execute("CREATE TABLE sinks_odd (id bigint, x text CHECK (x <> 'bad'))")
            sent = records(10)
            sent[4].service = "bad"
            with pytest.raises(PartialFailure) as caught:
                sink.write(batch(sent, type="odd"))
            assert list(caught.value.failures) == [4]
            with connections["records"].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM sinks_odd")
                assert cursor.fetchone() == (9,)
                cursor.execute("DROP TABLE sinks_odd")
