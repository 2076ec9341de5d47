"""The postgres sink against a real server: mapping, isolation of bad rows, proofs, faults."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from sinks.backends.postgres import PostgresSink
from sinks.options import OptionsError
from sinks.postgresql.poison import MAX_ISOLATED
from tests.sinks.contract import WAIT_S, SinkContract
from tests.sinks.records import batch, record, records
from tests.sinks.warehouse import COLUMNS, EVENTS, event, make, rows


@pytest.fixture
def dsn(postgres_dsn: str) -> str:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(EVENTS.encode())
    return postgres_dsn


@pytest.fixture
def sink(dsn: str) -> Iterator[PostgresSink]:
    sink = make(dsn)
    sink.open()
    yield sink
    sink.close()


class TestPostgresSink(SinkContract):
    @pytest.fixture(autouse=True)
    def _server(self, dsn):
        self.dsn = dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE events ALTER user_id DROP NOT NULL")

    def make(self):
        return make(self.dsn)

    def stored_ids(self, sink):
        return [row[0] for row in rows(self.dsn)]


def test_stores_ten_thousand_events_in_batches_of_500(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE events (user_id text, action text, ts timestamptz)")
    columns = {"user_id": "payload.user_id", "action": "payload.action", "ts": "timestamp"}
    sink = make(postgres_dsn, columns=columns)
    sink.open()
    for start in range(0, 10_000, 500):
        sent = [
            record({"user_id": f"u{n}", "action": "click", "n": n})
            for n in range(start, start + 500)
        ]
        sink.write(batch(sent, type="event"))
    sink.close()
    found = rows(postgres_dsn, "SELECT count(*), count(DISTINCT user_id), min(ts) FROM events")
    assert found[0][:2] == (10_000, 10_000)
    assert found[0][2].isoformat() == "2026-09-21T14:13:20+00:00"


def test_casts_every_kind_of_value(sink, dsn):
    awkward = 'tab\t nl\n back\\slash cr\r \\N grün "quote" 😀'
    sent = [
        event(1, awkward, price=12.5, extra={"a": ["x\ny", None, True, 1.5], "b": 'q"'}),
        event(2, "\\.", price="1e3", extra="text"),
        event(3, "x", price=None, extra=False),
    ]
    sent[2].payload = b'{"user_id":1152921504606846976,"price":12345678901234567.891}'
    sink.write(batch(sent))
    found = rows(dsn, "SELECT user_id, action, price::text, extra FROM events ORDER BY record_id")
    assert found == [
        (1, awkward, "12.5", {"a": ["x\ny", None, True, 1.5], "b": 'q"'}),
        (2, "\\.", "1000", "text"),
        (2**60, "x", "12345678901234567.891", None),
    ]
    sink.write(batch([event(4, extra=False)]))
    assert rows(dsn, "SELECT extra FROM events WHERE user_id = 4") == [(False,)]


def test_a_missing_value_is_null_and_a_nested_one_is_found(dsn):
    sink = make(
        dsn,
        columns={**COLUMNS, "price": "payload.order.total", "tags": "payload.tags"},
    )
    sink.open()
    sink.write(batch([event(1, order={"total": 3}, tags="{a,b}"), event(2, order=7), event(3)]))
    sink.close()
    found = rows(dsn, "SELECT price, tags FROM events ORDER BY record_id")
    assert found == [(3, ["a", "b"]), (None, None), (None, None)]


# --- bad records ---------------------------------------------------------------------------


def test_bad_rows_cost_only_themselves(sink, dsn):
    sent = [event(n) for n in range(500)]
    sent[3] = event("not a number")
    sent[77] = event(77, "forbidden")
    sent[250] = event(250, "nul \x00 byte")
    sent[498] = event(None)
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(sent))
    failures = caught.value.failures
    assert sorted(failures) == [3, 77, 250, 498]
    assert "22P02" in failures[3]
    assert "user_id" in failures[3]
    assert "23514" in failures[77]
    assert "22021" in failures[250]
    assert "23502" in failures[498]
    assert len(rows(dsn)) == 496


def test_a_row_outside_every_partition_of_a_foreign_table_costs_only_itself(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            b"CREATE TABLE visits (action text, record_id bigint) PARTITION BY RANGE (record_id)"
        )
        connection.execute(
            b"CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (10) TO (99)"
        )
    sink = make(dsn, table="visits", columns={"action": "message", "record_id": "payload.place"})
    sink.open()
    sent = [event(place=20), event(place=5), event(place=30)]
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(sent))
    sink.close()
    assert list(caught.value.failures) == [1]
    assert "no partition" in caught.value.failures[1]
    assert rows(dsn, "SELECT record_id FROM visits ORDER BY 1") == [(20,), (30,)]


def test_a_key_that_is_there_already_costs_its_row(sink, dsn):
    first = [event(1), event(2)]
    sink.write(batch(first))
    second = [event(3), event(4), event(5)]
    second[1].id = first[0].id
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(second))
    assert list(caught.value.failures) == [1]
    assert "23505" in caught.value.failures[1]
    assert len(rows(dsn)) == 4


def test_a_record_that_is_not_json_is_told_without_the_server(sink, dsn):
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch([event(1), record(b"{broken"), event(2)]))
    assert list(caught.value.failures) == [1]
    assert len(rows(dsn)) == 2


def test_a_value_beyond_a_limit_of_the_server_costs_its_row(sink, dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE INDEX ON events USING gin (to_tsvector('simple', action))")
    sent = [event(n) for n in range(101)]
    sent[40].message = " ".join(f"word{n:06}" for n in range(95_000))
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(sent))
    assert list(caught.value.failures) == [40]
    assert "54000" in caught.value.failures[40]
    assert len(rows(dsn)) == 100


def test_too_many_bad_rows_hand_the_batch_back(sink, dsn):
    with pytest.raises(PermanentError):
        sink.write(batch([event("bad") for _ in range(MAX_ISOLATED + 1)]))
    assert rows(dsn) == []


def test_the_second_delivery_reports_the_same_failures(sink, dsn):
    sent = batch([event(1), event("bad"), event(3)])
    for _ in range(2):
        with pytest.raises(PartialFailure) as caught:
            sink.write(sent)
        assert list(caught.value.failures) == [1]
    assert len(rows(dsn)) == 2


# --- exactly once --------------------------------------------------------------------------


@pytest.mark.concurrency
def test_a_second_deliverer_waits_and_finds_the_batch_stored(dsn):
    first, second = make(dsn), make(dsn)
    first.open()
    second.open()
    sent = batch([event(n) for n in range(2_000)])
    answers = []
    gate = threading.Barrier(2)

    def deliver(sink):
        gate.wait(WAIT_S)
        answers.append(sink.write(sent))

    threads = [threading.Thread(target=deliver, args=(s,)) for s in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted((a.stored, a.already_stored) for a in answers) == [(0, 2_000), (2_000, 0)]
    assert len(rows(dsn)) == 2_000
    first.close()
    second.close()


def test_without_proofs_nothing_is_kept_beside_the_data(dsn):
    sink = make(dsn, exactly_once=False)
    sink.open()
    sink.write(batch([event(1)]))
    sink.close()
    assert rows(dsn, "SELECT to_regclass('collector_batch_proof')") == [(None,)]
    assert sink.checks()


# --- faults of the sink --------------------------------------------------------------------


def test_a_missing_table_or_column_is_the_sinks_fault(dsn):
    for options in ({"table": "nosuch"}, {"columns": {"nosuch": "id"}}):
        sink = make(dsn, **options)
        sink.open()
        with pytest.raises(SinkFault, match="does not exist"):
            sink.write(batch([event(1)]))
        sink.close()


def test_a_missing_permission_is_the_sinks_fault(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS collector_reader")
        connection.execute("CREATE ROLE collector_reader LOGIN PASSWORD 'hunter2-secret'")
    limited = psycopg.conninfo.make_conninfo(
        dsn, user="collector_reader", password="hunter2-secret"
    )
    try:
        sink = make(limited, exactly_once=False)
        sink.open()
        with pytest.raises(SinkFault, match="42501"):
            sink.write(batch([event(1)]))
        sink.close()
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE collector_reader")


def test_no_such_database_is_the_sinks_fault(dsn):
    sink = make(psycopg.conninfo.make_conninfo(dsn, dbname="nosuch"))
    with pytest.raises(SinkFault, match="does not exist"):
        sink.open()


def test_nobody_listening_passes():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        sink = make(f"postgresql://u:p4ssw0rd@127.0.0.1:{port}/x")
        with pytest.raises(RetryableError, match="refused") as caught:
            sink.open()
        assert "p4ssw0rd" not in str(caught.value)


def test_a_connection_cut_by_the_server_is_made_anew(sink, dsn):
    sink.write(batch([event(1)]))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE 'collector sink%'"
        )
    sink.write(batch([event(2)]))
    assert len(rows(dsn)) == 2


@pytest.mark.concurrency
def test_abort_ends_a_write_that_hangs(sink, dsn):
    sink.write(batch([event(0)]))
    with psycopg.connect(dsn) as blocker:
        blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        errors = []

        def write():
            try:
                sink.write(batch([event(1)]))
            except RetryableError as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        with psycopg.connect(dsn, autocommit=True) as watcher:
            while not watcher.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
            ).fetchone():
                pass
        sink.abort()
        thread.join(WAIT_S)
        assert len(errors) == 1
    sink.write(batch([event(2)]))
    assert len(rows(dsn)) == 2


def test_sessions_are_set_up_to_keep_promises(sink):
    with sink._connections.lend() as connection:
        for name, wanted in [
            ("synchronous_commit", "on"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("statement_timeout", "1min"),
        ]:
            found = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
            assert found == (wanted,)
        assert connection.info.get_parameters()["tcp_user_timeout"] == "30000"


def test_connections_are_kept_and_only_as_many_as_writers(sink, dsn):
    for n in range(5):
        sink.write(batch([event(n)]))
    assert rows(
        dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'collector sink warehouse'"
        " AND datname = current_database()",
    ) == [(1,)]


def test_a_trial_says_what_the_table_refuses(sink, dsn):
    assert "refused the marked row" in sink.probe(batch(records(1)))
    assert rows(dsn) == []


# --- options -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dsn": "postgresql://u:hunter2@h:bad port/x"}, "dsn: expected"),
        ({"dsn": 7}, "dsn"),
        ({"table": "events; drop table x"}, "table"),
        ({"table": "a.b.c"}, "table"),
        ({"columns": {}}, "columns"),
        ({"columns": {"x": "nosuch"}}, "'nosuch' is not a field"),
        ({"columns": {"x": "payload."}}, "is not a field"),
        ({"columns": {'x"; --': "id"}}, "is not a column name"),
        ({"statement_timeout_s": 0}, "statement_timeout_s"),
    ],
)
def test_wrong_options_are_refused_by_name(options, words):
    with pytest.raises(OptionsError, match=words) as caught:
        make(**{"dsn": "postgresql://localhost/x", **options})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
