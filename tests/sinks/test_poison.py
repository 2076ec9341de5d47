"""Refused rows cost themselves: found in pieces on PostgreSQL, in one statement on SQLite."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import psycopg
import pytest

from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkError, SinkFault
from sinks.backends.postgres import PostgresSink
from sinks.postgresql import copy
from sinks.postgresql.poison import MAX_ISOLATED, PoisonRate, most_refused
from tests.sinks.records import batch, record
from tests.sinks.warehouse import EVENTS, event, events, make, rows


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


@pytest.fixture
def copied(monkeypatch) -> list[int]:
    """How many rows each COPY was sent."""
    counts: list[int] = []
    whole = copy._copy

    def counting(connection, job, rows):
        counts.append(len(rows))
        whole(connection, job, rows)

    monkeypatch.setattr(copy, "_copy", counting)
    return counts


# --- pieces --------------------------------------------------------------------------------


def test_a_clean_batch_is_one_copy(sink, copied):
    for _ in range(3):
        sink.write(batch(events(1_000)))
    assert copied == [1_000] * 3


def test_five_bad_rows_of_5000_are_sent_little_more_than_twice(sink, dsn, copied):
    places = [437 + 1_000 * n for n in range(5)]
    poisoned = {f"r{place}": "forbidden" for place in places}
    for _ in range(2):
        with pytest.raises(PartialFailure) as caught:
            sink.write(batch(events(5_000, **poisoned)))
        assert sorted(caught.value.failures) == places
    assert len(rows(dsn)) == 2 * 4_995
    first = copied.index(5_000) + 1
    again = sum(copied[first:]) - 5_000
    assert sum(copied) < 5_000 + 2 * 5_000 + 20 * 500
    copied.clear()
    with pytest.raises(PartialFailure):
        sink.write(batch(events(5_000, **poisoned)))
    assert max(copied) < 500, "where refusals are usual, nobody begins with the whole"
    assert sum(copied) < 1.5 * 5_000
    assert again > 0


def test_after_enough_clean_batches_they_are_sent_whole_again(sink, copied):
    with pytest.raises(PartialFailure):
        sink.write(batch(events(1_000, r500="forbidden")))
    for _ in range(60):
        sink.write(batch(events(1_000)))
    assert copied[-1] == 1_000


@pytest.mark.parametrize("seed", range(6))
def test_every_bad_row_is_found_wherever_it_lies(sink, dsn, seed):
    """Keys are looked at after values, so that a later row may be named before an earlier one."""
    chosen = random.Random(seed)
    taken = event(0)
    sink.write(batch([taken]))
    count = chosen.choice([50, 700, 2_500])
    sent = events(count)
    bad = sorted(chosen.sample(range(count), min(12, count // 20)))
    for place, kind in zip(bad, itertools.cycle(range(4)), strict=False):
        if kind == 0:
            sent[place] = event("not a number")
        elif kind == 1:
            sent[place].message = "forbidden"
        elif kind == 2:
            sent[place].id = taken.id
        else:
            sent[place].message = "nul \x00 byte"
    with pytest.raises(PartialFailure) as caught:
        sink.write(batch(sent))
    assert sorted(caught.value.failures) == bad
    assert len(rows(dsn)) == 1 + count - len(bad)


def test_a_batch_with_too_many_bad_rows_is_handed_back_whole(sink, dsn):
    assert most_refused(1_000) == 50
    poisoned = {f"r{n}": "forbidden" for n in range(0, 1_000, 10)}
    for _ in range(2):  # as a whole, and in pieces from the start
        with pytest.raises(PermanentError, match="23514"):
            sink.write(batch(events(1_000, **poisoned)))
    assert rows(dsn) == []


def test_the_sizes_of_pieces_follow_the_rate():
    rate = PoisonRate()
    assert rate.pieces_expected(5_000) == 0
    assert MAX_ISOLATED < rate.pieces_needed(5_000) < 1_000
    for _ in range(30):
        rate.count(rows=5_000, refused=5)
    assert 150 < rate.pieces_expected(5_000) < 350
    assert rate.pieces_expected(20) == 0, "a small batch is sent twice more cheaply"
    for _ in range(40):
        rate.count(rows=5_000, refused=250)
    assert rate.pieces_expected(5_000) < 50
    for _ in range(60):
        rate.count(rows=5_000, refused=0)
    assert rate.pieces_expected(5_000) == 0


# --- whose fault it is ---------------------------------------------------------------------

REFUSED = [
    ("22P02", {"user_id": "x"}, "login", ""),
    ("22003", {"user_id": 2**70}, "login", ""),
    ("22021", {"user_id": 1}, "nul \x00", ""),
    ("23502", {}, "login", ""),
    ("23514", {"user_id": 1}, "forbidden", ""),
    ("23503", {"user_id": 13}, "login",
     "CREATE TABLE users (id bigint PRIMARY KEY); INSERT INTO users VALUES (1); "
     "ALTER TABLE events ADD FOREIGN KEY (user_id) REFERENCES users DEFERRABLE"),
    ("P0001", {"user_id": 13}, "login",
     "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
     "$$BEGIN IF new.user_id = 13 THEN RAISE EXCEPTION 'no thirteens'; END IF; RETURN new; END$$; "
     "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "payload", "action", "ddl"), REFUSED, ids=[case[0] for case in REFUSED]
)
def test_errors_about_a_record(dsn, sink, state, payload, action, ddl):
    if ddl:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(ddl.encode())
    bad = record(payload, message=action)
    sent = batch([event(1), bad, event(1)])
    if state == "23503":  # looked at after the whole COPY, and so without a row: halved instead
        with pytest.raises(PermanentError, match=state):
            sink.write(sent)
        return
    with pytest.raises(PartialFailure) as caught:
        sink.write(sent)
    assert list(caught.value.failures) == [1]
    assert state in caught.value.failures[1]
    assert len(rows(dsn)) == 2


def write_while(dsn: str, sink: PostgresSink, *statements: str) -> SinkError:
    """What a write meets while another session has done these."""
    with psycopg.connect(dsn) as other:
        for statement in statements:
            other.execute(statement.encode())
        with pytest.raises(SinkError) as caught:
            sink.write(batch([event(1)]))
        other.rollback()
    return caught.value


def test_a_statement_timeout_passes(dsn):
    sink = make(dsn, statement_timeout_s=1)
    sink.open()
    error = write_while(dsn, sink, "LOCK TABLE events")
    assert isinstance(error, RetryableError)
    assert "57014" in str(error)
    sink.close()


RAISED = [
    ("08006", RetryableError), ("25006", RetryableError), ("25P03", RetryableError),
    ("40001", RetryableError), ("40P01", RetryableError), ("53100", RetryableError),
    ("53200", RetryableError), ("53300", RetryableError), ("55P03", RetryableError),
    ("57014", RetryableError), ("57P01", RetryableError), ("57P03", RetryableError),
    ("58030", RetryableError), ("28000", SinkFault), ("3D000", SinkFault), ("42501", SinkFault),
    ("42703", SinkFault), ("0A000", SinkFault), ("XX000", SinkFault), ("ZZ999", SinkFault),
    ("22000", PartialFailure), ("23000", PartialFailure), ("44000", PartialFailure),
    ("54000", PartialFailure),
]  # fmt: skip


@pytest.mark.parametrize(("state", "kind"), RAISED, ids=[case[0] for case in RAISED])
def test_what_each_class_of_errors_means(dsn, sink, state, kind):
    """Raised by a trigger on the server itself, so that all of psycopg's way is gone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF new.user_id = 2"
            f" THEN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END IF; RETURN new; END$$;"
            "CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fail()"
            .encode()
        )  # fmt: skip
    with pytest.raises(kind) as caught:
        sink.write(batch([event(1), event(2)]))
    assert len(rows(dsn)) == (1 if kind is PartialFailure else 0)
    assert type(caught.value) is kind


@pytest.mark.parametrize("ended_by", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_session_that_an_administrator_ends_passes(dsn, sink, ended_by, monkeypatch):
    whole = copy._copy

    def ended(connection, job, rows):
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute(
                "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$BEGIN PERFORM {ended_by}(pg_backend_pid()); RETURN new; END$$;"
                "CREATE TRIGGER pause BEFORE INSERT ON events EXECUTE FUNCTION pause()".encode()
            )
        whole(connection, job, rows)

    monkeypatch.setattr(copy, "_copy", ended)
    with pytest.raises(RetryableError):
        sink.write(batch([event(1)]))
    assert rows(dsn) == []


def test_too_many_connections_pass(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS collector_crowded")
        connection.execute("CREATE ROLE collector_crowded LOGIN CONNECTION LIMIT 0 PASSWORD 'x'")
    try:
        crowded = make(psycopg.conninfo.make_conninfo(dsn, user="collector_crowded", password="x"))
        with pytest.raises(RetryableError, match="too many connections"):
            crowded.open()
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE collector_crowded")
