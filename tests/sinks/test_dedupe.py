"""A record's own id, stored once per tenant and type: `dedupe_by_id` of both database sinks."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.apps import apps
from django.db import connections

from pipeline.errors import PartialFailure
from pipeline.record import Record
from sinks.backends.database import DatabaseOptions, DatabaseSink
from sinks.backends.postgres import PostgresSink
from sinks.handmade import make_batch, make_part
from sinks.postgresql import ownids
from sinks.recordids import own_id
from sinks.sqlite import beside
from tests.sinks.records import ARRIVAL_US, batch, record
from tests.sinks.warehouse import EVENTS, event, make, rows


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b'{"id":"a"}', '"a"'),
        (b'{"id" : 7}', "7"),
        (b'{"id":-12345678901234567890123}', "-12345678901234567890123"),
        (b'{"id":"\\u0061"}', '"a"'),
        (b'{"id":"nul \\u0000"}', '"nul \\u0000"'),
        (b'{"id":""}', '""'),
        (b'{"id":1.0}', ""),
        (b'{"id":true}', ""),
        (b'{"id":null}', ""),
        (b'{"id":{"a":1}}', ""),
        (b'{"id":["a"]}', ""),
        (b'{"nested":{"id":1}}', ""),
        (b"{broken", ""),
        (b"[1]", ""),
    ],
)
def test_what_counts_as_an_id(payload, text):
    assert own_id(payload) == text


def test_a_long_id_is_known_by_its_digest():
    first, second = (own_id(b'{"id":"' + b"x" * 500 + end + b'"}') for end in (b"a", b"b"))
    assert first.startswith("sha256:")
    assert len(first) == 71
    assert first != second


# --- any PostgreSQL ------------------------------------------------------------------------


@pytest.fixture
def dsn(postgres_dsn: str) -> str:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(EVENTS.encode())
    return postgres_dsn


@pytest.fixture
def sink(dsn: str) -> Iterator[PostgresSink]:
    sink = make(dsn, dedupe_by_id=True)
    sink.open()
    yield sink
    sink.close()


def own(*ids: object, action: str = "login") -> list[Record]:
    return [event(n, action, id=id) for n, id in enumerate(ids)]


def kept(dsn: str) -> list[str]:
    return [str(row[0]) for row in rows(dsn, "SELECT id FROM collector_record_id ORDER BY 1")]


def test_an_id_is_stored_once_over_batches_and_within_one(sink, dsn):
    first = sink.write(batch([*own("a", "b", "a"), event(9)]))
    assert (first.stored, first.already_stored) == (3, 1)
    second = sink.write(batch(own("b", "c", 1, "1", "c")))
    assert (second.stored, second.already_stored) == (3, 2)
    assert len(rows(dsn)) == 6
    assert kept(dsn) == ['"1"', '"a"', '"b"', '"c"', "1"]


def test_the_same_id_of_another_tenant_or_type_is_another_id(sink, dsn):
    parts = [
        make_part(own("a"), type=type, tenant=tenant, received_us=ARRIVAL_US)
        for type, tenant in (("log", "x"), ("log", "y"), ("event", "x"), ("log", "x"))
    ]
    written = sink.write(make_batch(parts, number=1))
    assert (written.stored, written.already_stored) == (3, 1)


def test_what_was_stored_before_is_told_beside_what_is_refused(sink, dsn):
    sink.write(batch(own("a", "b")))
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch([*own("a", "b", "c"), *own("bad", action="forbidden")]))
    assert (list(caught.value.failures), caught.value.already_stored) == ([3], 2)


def test_a_refused_record_leaves_its_id_to_the_mended_one(sink, dsn):
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch([*own("a", "b"), *own("bad", action="forbidden")]))
    assert list(caught.value.failures) == [2]
    assert kept(dsn) == ['"a"', '"b"']
    assert sink.write(batch(own("bad"))).stored == 1


def test_a_refused_record_of_a_batch_in_pieces_leaves_its_id(sink, dsn):
    expect_refusals(sink)
    filler = [event(n) for n in range(1_000)]
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch([*own("a"), *filler, *own("bad", action="forbidden")]))
    assert list(caught.value.failures) == [1_001]
    assert kept(dsn) == ['"a"']
    assert sink.write(batch(own("bad"))).stored == 1


def expect_refusals(sink: PostgresSink) -> None:
    """So that the next batch is sent in pieces, its bad rows and their ids with it."""
    sink._keeping.poison.count(rows=20_000, refused=200)
    assert sink._keeping.poison.pieces_expected(1_000) > 0


def test_the_next_of_the_same_id_takes_the_place_of_a_refused_one(sink, dsn):
    sent = [
        *own("twin", action="forbidden"), *own("other"), *own("twin", action="forbidden"),
        *own("twin"), *own("twin"),
    ]  # fmt: skip
    for _ in range(2):
        with pytest.raises(PartialFailure) as caught:
            sink.write(batch(sent))
        assert sorted(caught.value.failures) == [0, 2]
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert len(connection.execute("DELETE FROM events RETURNING 1").fetchall()) == 2
            connection.execute("DELETE FROM collector_record_id")
    # In pieces from the start, too.
    expect_refusals(sink)
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch([*(event(n) for n in range(1_000)), *sent]))
    assert sorted(caught.value.failures) == [1_000, 1_002]
    assert len(rows(dsn)) == 1_002


def test_a_batch_that_comes_again_is_known_by_its_proof_first(sink, dsn):
    sent = batch(own("a", "b"))
    assert sink.write(sent).stored == 2
    assert sink.write(sent).already_stored == 2


def test_ids_go_after_their_days(sink, dsn, monkeypatch):
    sink.write(batch(own("old", "new")))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE collector_record_id SET stored_at = now() - interval '8 days' WHERE id = %s",
            ['"old"'],
        )
    monkeypatch.setattr(ownids, "PRUNE_EVERY", 1)
    sink.write(batch(own("next")))
    assert kept(dsn) == ['"new"', '"next"']
    assert sink.write(batch(own("old"))).stored == 1


def test_without_the_option_nothing_is_kept(dsn):
    sink = make(dsn)
    sink.open()
    assert sink.write(batch(own("a", "a"))).stored == 2
    assert rows(dsn, "SELECT to_regclass('collector_record_id')") == [(None,)]
    sink.close()


# --- this installation's database ----------------------------------------------------------


@pytest.fixture
def database() -> Iterator[DatabaseSink]:
    sink = DatabaseSink(DatabaseOptions(dedupe_by_id=True), name="database")
    sink.open()
    forget_ids()
    yield sink
    sink.close()
    forget_ids()


def forget_ids() -> None:
    with connections["records"].cursor() as cursor:
        cursor.execute("DELETE FROM collector_record_id")


def stored() -> int:
    return apps.get_model("ingest", "LogRecord").objects.using("records").count()


def logs(*ids: object) -> list[Record]:
    return [record({"id": id}) for id in ids]


@pytest.mark.django_db(transaction=True)
def test_the_records_database_stores_an_id_once(database):
    first = database.write(batch(logs("a", "b", "a", 7)))
    assert (first.stored, first.already_stored) == (3, 1)
    many = [*range(2_400), 7, "b"]
    second = database.write(batch(logs(*many)))
    assert (second.stored, second.already_stored) == (2_399, 3)
    assert stored() == 2_402


@pytest.mark.django_db(transaction=True)
def test_the_records_database_lets_go_of_a_refused_records_id(database):
    bad, twin = logs("x", "x")
    bad.message = None  # type: ignore[assignment]
    with pytest.raises(PartialFailure) as caught:
        database.write(batch([bad, twin, *logs("y")]))
    assert list(caught.value.failures) == [0]
    assert caught.value.already_stored == 0
    bad = record({})
    bad.message = None  # type: ignore[assignment]
    with pytest.raises(PartialFailure) as caught:
        database.write(batch([bad, *logs("y", "z")]))
    assert (list(caught.value.failures), caught.value.already_stored) == ([0], 1)
    assert stored() == 3
    assert database.write(batch(logs("x"))).already_stored == 1


@pytest.mark.django_db(transaction=True)
def test_the_records_database_forgets_old_ids(database, monkeypatch):
    vendor = connections["records"].vendor
    database.write(batch(logs("old")))
    with connections["records"].cursor() as cursor:
        past = (
            "now() - interval '8 days'" if vendor == "postgresql" else "datetime('now','-8 days')"
        )
        cursor.execute(f"UPDATE collector_record_id SET stored_at = {past}")
    monkeypatch.setattr(ownids, "PRUNE_EVERY", 1)
    monkeypatch.setattr(beside, "PRUNE_IDS_EVERY", 1)
    database.write(batch(logs("new")))
    assert database.write(batch(logs("old"))).stored == 1
