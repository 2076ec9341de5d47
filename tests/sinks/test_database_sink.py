"""The sink into this installation's records database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from django.apps import apps
from django.db import connections, models, transaction

from control.ports.tables import Column, TableSpec, register_table, table_for, unregister_table
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from sinks.backends.database import DatabaseOptions, DatabaseSink
from sinks.postgresql import proofs as pg_proofs
from sinks.sqlite import beside
from sinks.sqlite import tables as sqlite_tables
from tests.sinks.contract import WAIT_S, SinkContract
from tests.sinks.records import ARRIVAL_US, batch, batch_of_parts, record, records
from tests.sinks.warehouse import checkpointed

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


def test_refused_records_are_tried_again_by_who_was_told_and_by_nobody_else(sink):
    """A sink that refuses much is held and repaired; what was dead-lettered is not stored twice."""

    def odd(query: str) -> int:
        with connections["records"].cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0] if cursor.description else 0

    with registered("odd", "sinks_odd"):
        odd("CREATE TABLE sinks_odd (id bigint, x text)")
        odd("CREATE UNIQUE INDEX sinks_odd_x ON sinks_odd (x) WHERE x = 'bad'")
        odd("INSERT INTO sinks_odd VALUES (0, 'bad')")
        try:
            sent = {"held": records(1_100), "dead": records(10)}
            sent["held"][5].service = sent["held"][1_050].service = "bad"
            sent["dead"][3].service = "bad"
            held, dead = (batch(sent[name], type="odd") for name in ("held", "dead"))
            for one, refused, already in (
                (held, [5, 1_050], 0),
                (held, [5, 1_050], 1_098),
                (dead, [3], 0),
            ):
                with pytest.raises(PartialFailure) as caught:
                    sink.write(one)
                assert sorted(caught.value.failures) == refused
                assert caught.value.already_stored == already
            odd("DROP INDEX sinks_odd_x")
            again = sink.write(held)
            assert (again.stored, again.already_stored) == (2, 1_098)
            assert sink.write(held).already_stored == 1_100
            adopter = DatabaseSink(DatabaseOptions(), name="adopter")
            adopter.open()
            for _ in range(2):
                with pytest.raises(PartialFailure) as caught:
                    adopter.write(dead)
                assert list(caught.value.failures) == [3]
                assert caught.value.already_stored == 9
            adopter.close()
            assert odd("SELECT count(*) FROM sinks_odd") == 1_110
        finally:
            odd("DROP TABLE sinks_odd")


def proofs_of(*logs: str) -> list[tuple[str, int]]:
    with connections["records"].cursor() as cursor:
        cursor.execute("SELECT DISTINCT log_id, number FROM collector_batch_proof ORDER BY 1, 2")
        return [(log, number) for log, number in cursor.fetchall() if log in logs]


def test_proofs_go_below_the_checkpoint_and_with_their_log(sink, monkeypatch):
    monkeypatch.setattr(pg_proofs, "PRUNE_EVERY", 2)
    monkeypatch.setattr(beside, "PRUNE_EVERY", 2)
    for number, below in ((1, 0), (2, 0), (3, 1), (4, 3)):
        sink.write(checkpointed(records(1), log_id="prunelog", number=number, below=below))
    sink.write(checkpointed(records(1), log_id="otherlog", number=1, below=0))
    assert proofs_of("prunelog", "otherlog") == [
        ("otherlog", 1),
        ("prunelog", 3),
        ("prunelog", 4),
    ]
    sink.forget("prunelog")
    assert proofs_of("prunelog", "otherlog") == [("otherlog", 1)]


def test_a_sinks_proofs_outlive_the_pruning_of_another(sink, monkeypatch):
    """Two sinks write to this database; one is slow, and its batches may come again."""
    monkeypatch.setattr(pg_proofs, "PRUNE_EVERY", 2)
    monkeypatch.setattr(beside, "PRUNE_EVERY", 2)
    slow = checkpointed(records(1), log_id="sharedlog", number=7, below=0, sink="slow")
    sink.write(slow)
    for number, below in ((1, 0), (400, 300)):
        sink.write(
            checkpointed(records(1), log_id="sharedlog", number=number, below=below, sink="swift")
        )
    assert proofs_of("sharedlog") == [("sharedlog", 7), ("sharedlog", 400)]
    assert sink.write(slow).already_stored == 1


def test_a_log_that_waited_for_weeks_still_finds_its_proofs(sink):
    sent = checkpointed(records(3), log_id="holiday", number=1, below=0)
    lost = checkpointed(records(3), log_id="lost", number=1, below=0)
    sink.write(sent)
    sink.write(lost)
    with connections["records"].cursor() as cursor:
        for log, days in (("holiday", 60), ("lost", 91)):
            past = f"now() - interval '{days} days'"
            past = past if ON_POSTGRESQL else f"datetime('now', '-{days} days')"
            cursor.execute(
                f"UPDATE collector_batch_proof SET stored_at = {past} WHERE log_id = %s", [log]
            )
    sink.close()
    sink.open()
    assert proofs_of("holiday", "lost") == [("holiday", 1)]
    assert sink.write(sent).already_stored == 3


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

    def test_a_refused_row_costs_one_statement(sink, monkeypatch):
        one_by_one: list[int] = []
        whole = sqlite_tables._one_by_one

        def counting(connection, statement, rows, indices):
            one_by_one.append(len(rows))
            return whole(connection, statement, rows, indices)

        monkeypatch.setattr(sqlite_tables, "_one_by_one", counting)
        sent = records(2_020)
        for place in (437, 2_019):
            sent[place].message = None  # type: ignore[assignment]
        with pytest.raises(PartialFailure) as caught:
            sink.write(batch(sent))
        assert sorted(caught.value.failures) == [437, 2_019]
        assert one_by_one == [sqlite_tables.ROWS_A_STATEMENT, 20]
        assert stored().count() == 2_018

    def test_a_trigger_that_ends_the_transaction_stores_nothing(sink):
        with registered("odd", "sinks_odd"):
            with connections["records"].cursor() as cursor:
                cursor.execute("CREATE TABLE sinks_odd (id bigint, x text)")
                cursor.execute(
                    "CREATE TRIGGER ender BEFORE INSERT ON sinks_odd WHEN new.x = 'bad'"
                    " BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
                )
            sent = records(120)
            sent[70].service = "bad"
            with pytest.raises(SinkFault, match="RAISE"):
                sink.write(batch(sent, type="odd"))
            with connections["records"].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM sinks_odd")
                assert cursor.fetchone() == (0,)
                cursor.execute("DROP TABLE sinks_odd")

    def test_an_abort_ends_the_wait_for_another_writer(sink):
        connection = connections["records"]
        sink._store._busy_s = 600.0
        sent, errors = batch(records(10)), []

        def write():
            try:
                sink.write(sent)
            except RetryableError as error:
                errors.append(str(error))

        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            thread = threading.Thread(target=write)
            thread.start()
            while not sink._store._lock.locked():
                pass
            sink.abort()
            while thread.is_alive():  # it may not have begun when the first came
                sink.abort()
                thread.join(0.01)
            cursor.execute("ROLLBACK")
        assert len(errors) == 1
        assert sink.write(sent).stored == 10

    def test_an_abort_ends_a_long_batch_between_statements(sink, monkeypatch):
        sent = batch(records(2_500))
        claim = beside.PieceProofs.claim

        def aborting(self, connection, batch, piece):
            if piece == 1:
                sink.abort()
            return claim(self, connection, batch, piece)

        monkeypatch.setattr(beside.PieceProofs, "claim", aborting)
        with pytest.raises(RetryableError, match="aborted"):
            sink.write(sent)
        monkeypatch.undo()
        again = sink.write(sent)
        assert (again.stored, again.already_stored) == (1_500, 1_000)

    def test_a_deliverer_killed_between_pieces_leaves_nothing_to_store_twice(tmp_path):
        """SIGKILL in the middle of a batch, of a transaction and before it; then it goes again."""
        path = tmp_path / "records.sqlite3"
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("PRAGMA journal_mode = wal")
            made.execute("CREATE TABLE sinks_odd (id integer PRIMARY KEY, x text)")
        for kill_at in (0, 25, 25):  # of 20 statements a piece, those not stored yet
            ended = subprocess.run(
                [sys.executable, "-c", KILLED, str(path), str(kill_at)], check=False, timeout=100
            )
            assert ended.returncode == -signal.SIGKILL
        with contextlib.closing(sqlite3.connect(path)) as found:
            assert found.execute("SELECT count(*) FROM sinks_odd").fetchone() == (2_000,)
        last = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), "-1"], check=True, timeout=100,
            capture_output=True, text=True,
        )  # fmt: skip
        assert last.stdout.split() == ["500", "2000"]
        with contextlib.closing(sqlite3.connect(path)) as found:
            assert found.execute("SELECT count(*), max(id) FROM sinks_odd").fetchone() == (
                2_500,
                2_500,
            )


KILLED = """
import os, signal, sqlite3, sys
import django
from django.conf import settings
settings.configure()
from control.ports.tables import Column, TableSpec, register_table
from pipeline.record import Record
from sinks.handmade import make_batch, make_part
from sinks.sqlite.tables import SqliteTables

path, kill_at = sys.argv[1], int(sys.argv[2])
register_table(TableSpec(record_type="odd", table="sinks_odd",
    columns=(Column("id", "int8"), Column("x", "text")),
    rows=lambda part: [(r.id, r.service) for r in part.records]))
seen = 0

def trace(statement):
    global seen
    if statement.startswith('INSERT INTO "sinks_odd"'):
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

def connect():
    connection = sqlite3.connect(path)
    connection.set_trace_callback(trace)
    return connection

records = [Record(timestamp_us=0, severity=9, service="s", message="m", trace_id="", span_id="",
                  payload=b"{}", id=n) for n in range(1, 2_501)]
batch = make_batch([make_part(records, type="odd", received_us=0)], number=1)
written = SqliteTables(connect=connect).write(batch)
print(written.stored, written.already_stored)
"""
