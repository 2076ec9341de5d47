"""A batch is stored once whatever becomes of its deliverer, on a real server behind a proxy."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from pipeline.errors import PartialFailure, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.backends.postgres import PostgresSink
from sinks.handmade import make_batch
from sinks.postgresql import connections, proofs
from tests.servers.proxy import postgres_proxy
from tests.sinks import warehouse
from tests.sinks.contract import WAIT_S
from tests.sinks.records import batch
from tests.sinks.warehouse import EVENTS, checkpointed, event, events, make, rows

COMMIT = b"COMMIT\0"


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


class Delivery(threading.Thread):
    """A write in a thread of its own; its answer or its error is kept."""

    def __init__(self, sink: PostgresSink, sent: Batch) -> None:
        super().__init__(daemon=True)
        self.sink, self.sent = sink, sent
        self.answer: Written | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.sink.write(self.sent)
        except BaseException as error:
            self.error = error

    def result(self) -> Written | BaseException | None:
        self.join(WAIT_S)
        assert not self.is_alive(), "the write hangs"
        return self.error or self.answer


def until(dsn: str, condition: str) -> None:
    """Wait until the server itself says so."""
    query = f"SELECT 1 FROM pg_stat_activity WHERE {condition}"
    with psycopg.connect(dsn, autocommit=True) as watcher:
        for _ in range(100_000):
            if watcher.execute(query.encode()).fetchone():
                return
    raise AssertionError(f"it never came about: {condition}")


SINKS = "datname = current_database() AND application_name LIKE 'collector sink%'"
WAITING = f"wait_event_type = 'Lock' AND {SINKS}"


# --- who else may deliver it ---------------------------------------------------------------


def test_a_second_deliverer_waits_for_the_first_ones_commit(dsn, sink):
    """The first one's COMMIT is done and nobody knows; then its connection is gone."""
    sent = batch(events(100))
    with postgres_proxy(dsn) as (through, proxy):
        zombie = make(through)
        zombie.open()
        held = proxy.hold_answer_to(COMMIT)
        first = Delivery(zombie, sent)
        assert held.wait(WAIT_S)
        assert sink.write(sent).already_stored == 100
        held.cut()
        assert isinstance(first.result(), RetryableError)
        assert zombie.write(sent).already_stored == 100
        zombie.close()
    assert len(rows(dsn)) == 100


@pytest.mark.parametrize("ending", ["commit", "death"])
def test_a_second_deliverer_waits_on_the_key_of_an_open_transaction(dsn, sink, ending):
    sent = batch(events(100))
    with psycopg.connect(dsn, autocommit=True) as blocker, postgres_proxy(dsn) as (through, proxy):
        other = make(through)
        other.open()
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE events IN SHARE MODE")
        first = Delivery(other, sent)
        until(dsn, f"{WAITING} AND query LIKE 'COPY%'")
        second = Delivery(sink, sent)
        until(dsn, f"{WAITING} AND query LIKE 'BEGIN; INSERT%'")
        if ending == "death":
            proxy.cut()
            assert isinstance(first.result(), RetryableError)
        blocker.execute("ROLLBACK")
        answer = second.result()
        assert isinstance(answer, Written)
        stored_first = 100 if ending == "commit" else 0
        assert (answer.stored, answer.already_stored) == (100 - stored_first, stored_first)
        other.close()
    assert len(rows(dsn)) == 100


def test_a_zombie_whose_proof_arrives_late_stores_nothing(dsn, sink):
    """Its process died while the opening statement was on its way; the batch is done meanwhile."""
    sent = batch(events(10))
    with postgres_proxy(dsn) as (through, proxy):
        zombie = make(through)
        zombie.open()
        zombie.write(batch([event(0)]))
        proxy.stall()
        first = Delivery(zombie, sent)
        assert proxy.wait_stalled(WAIT_S)
        zombie.abort()
        assert isinstance(first.result(), RetryableError)
        assert sink.write(sent).stored == 10
        sink.forget(sent.log_id)  # not even the key is there to stop it
        proxy.heal()
        while len(rows(dsn, "SELECT 1 FROM pg_stat_activity WHERE " + SINKS)) > 1:
            pass
    assert len(rows(dsn)) == 11


# --- ends of the transaction ---------------------------------------------------------------


def test_an_answer_to_commit_that_is_lost_is_no_duplicate(dsn):
    sent = batch(events(10))
    with postgres_proxy(dsn) as (through, proxy):
        sink = make(through)
        sink.open()
        for _ in range(10):  # no statement may hide behind a prepared name
            sink.write(batch([event(1)]))
        held = proxy.hold_answer_to(COMMIT)
        delivery = Delivery(sink, sent)
        assert held.wait(WAIT_S)
        held.cut()
        assert isinstance(delivery.result(), RetryableError)
        assert len(rows(dsn)) == 20
        again = sink.write(sent)
        assert (again.stored, again.already_stored) == (0, 10)
        assert len(rows(dsn)) == 20
        sink.close()


def test_a_session_ended_while_idle_in_its_transaction_is_tried_again(dsn, sink, monkeypatch):
    """The deliverer pauses after the proof for longer than the server allows."""
    monkeypatch.setattr(connections, "IDLE_IN_TRANSACTION_MS", 50)
    slow = make(dsn)
    slow.open()
    begin = proofs.Proofs.begin

    def pausing(self, connection, *args):
        answer = begin(self, connection, *args)
        pid = connection.info.backend_pid
        while rows(dsn, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
            pass
        return answer

    monkeypatch.setattr(proofs.Proofs, "begin", pausing)
    sent = batch(events(10))
    with pytest.raises(RetryableError):
        slow.write(sent)
    monkeypatch.setattr(proofs.Proofs, "begin", begin)
    assert sink.write(sent).stored == 10
    slow.close()
    assert len(rows(dsn)) == 10


# --- what a replay may look like -----------------------------------------------------------


def test_halves_of_a_batch_are_batches_of_their_own(dsn, sink):
    """A split was logged: at replay its children come, under numbers of their own."""
    whole = batch(events(10))
    halves = [make_batch(parts, number=whole.number * 1000 + n) for n, parts in
              enumerate(whole.halves())]  # fmt: skip
    assert sink.write(halves[0]).stored == 5
    again = [sink.write(half) for half in halves]
    assert [(w.stored, w.already_stored) for w in again] == [(0, 5), (5, 0)]
    assert len(rows(dsn)) == 10


def test_a_repeated_batch_reports_the_same_failures_in_pieces_too(dsn, sink):
    sent = batch(events(3_000, r5="forbidden", r1999="forbidden", r2999="forbidden"))
    reports, already = [], []
    for _ in range(3):
        with pytest.raises(PartialFailure) as caught:
            sink.write(sent)
        reports.append(caught.value.failures)
        already.append(caught.value.already_stored)
    assert already == [0, 2_997, 2_997]
    assert sorted(reports[0]) == [5, 1999, 2999]
    assert reports[1] == reports[2] == reports[0]
    assert len(rows(dsn)) == 2_997


def test_refused_records_are_tried_again_by_who_was_told_and_by_nobody_else(dsn, sink):
    """A sink that refuses much is held and repaired; what was dead-lettered is not stored twice."""
    held = batch(events(500, r7="forbidden", r499="forbidden"))
    dead = batch(events(10, r3="forbidden"))
    for sent, refused in ((held, [7, 499]), (held, [7, 499]), (dead, [3])):
        with pytest.raises(PartialFailure) as caught:
            sink.write(sent)
        assert sorted(caught.value.failures) == refused
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_action_check")
    again = sink.write(held)
    assert (again.stored, again.already_stored) == (2, 498)
    assert sink.write(held).already_stored == 500
    adopter = make(dsn)
    adopter.open()
    for _ in range(2):
        with pytest.raises(PartialFailure) as caught:
            adopter.write(dead)
        assert list(caught.value.failures) == [3]
        assert caught.value.already_stored == 9
    adopter.close()
    assert len(rows(dsn)) == 509


def test_of_what_was_refused_before_the_ones_stored_now_are_new(dsn, sink):
    """One of two causes was repaired: a record is stored, another is refused still."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE events ADD CHECK (action <> 'worse')")
    sent = batch(events(10, r3="forbidden", r6="worse"))
    with pytest.raises(PartialFailure) as caught:
        sink.write(sent)
    assert (sorted(caught.value.failures), caught.value.already_stored) == ([3, 6], 0)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_action_check")
    with pytest.raises(PartialFailure) as caught:
        sink.write(sent)
    assert (sorted(caught.value.failures), caught.value.already_stored) == ([6], 8)
    assert len(rows(dsn)) == 9


def test_another_log_with_the_same_number_is_another_batch(dsn, sink):
    first = batch(events(2), log_id="one")
    second = checkpointed(events(2), log_id="redrive-0a", number=first.number, below=0)
    assert sink.write(first).stored == sink.write(second).stored == 2
    assert sink.write(second).already_stored == 2
    assert len(rows(dsn)) == 4


# --- how long proofs stay ------------------------------------------------------------------


def test_proofs_go_below_the_checkpoint_and_no_earlier(dsn, sink, monkeypatch):
    monkeypatch.setattr(proofs, "PRUNE_EVERY", 3)
    other = batch([event(0)], log_id="other")
    sink.write(other)
    for number in range(1, 8):
        sink.write(checkpointed([event(number)], log_id="log", number=number, below=0))
    assert len(warehouse.proofs(dsn)) == 8
    sink.write(checkpointed([event(8)], log_id="log", number=8, below=2))
    assert len(warehouse.proofs(dsn)) == 9
    sink.write(checkpointed([event(9)], log_id="log", number=9, below=6))
    assert warehouse.proofs(dsn) == [
        *(("log", number) for number in (6, 7, 8, 9)),
        ("other", other.number),
    ]


def test_a_sinks_proofs_outlive_the_pruning_of_another(dsn, sink, monkeypatch):
    monkeypatch.setattr(proofs, "PRUNE_EVERY", 2)
    slow = checkpointed([event(0)], log_id="log", number=7, below=0, sink="slow")
    sink.write(slow)
    for number, below in ((1, 0), (400, 300)):
        sink.write(checkpointed([event(1)], log_id="log", number=number, below=below, sink="swift"))
    assert warehouse.proofs(dsn) == [("log", 7), ("log", 400)]
    assert sink.write(slow).already_stored == 1


def test_a_log_that_is_finished_is_forgotten_whole(dsn, sink):
    for log_id in ("gone", "stays"):
        sink.write(checkpointed([event(1)], log_id=log_id, number=1, below=0))
    sink.forget("gone")
    assert warehouse.proofs(dsn) == [("stays", 1)]


def test_a_log_that_waited_for_weeks_still_finds_its_proofs(dsn):
    sink = make(dsn)
    sink.open()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO collector_batch_proof (log_id, number, sink, stored_at)"
            " VALUES ('lost', 1, 's', now() - interval '91 days'),"
            " ('holiday', 1, 'handmade', now() - interval '60 days')"
        )
    sink.close()
    sink.open()
    assert warehouse.proofs(dsn) == [("holiday", 1)]
    late = checkpointed(events(3), log_id="holiday", number=1, below=0)
    assert sink.write(late).already_stored == 3
    sink.close()


# --- without the right to proofs -----------------------------------------------------------


@pytest.fixture
def limited(dsn: str) -> Iterator[str]:
    """A user who may write the table and make none."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS collector_writer")
        connection.execute("CREATE ROLE collector_writer LOGIN PASSWORD 'hunter2-secret'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("GRANT INSERT ON events TO collector_writer")
    yield psycopg.conninfo.make_conninfo(dsn, user="collector_writer", password="hunter2-secret")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP OWNED BY collector_writer")
        connection.execute("DROP ROLE collector_writer")


def test_without_the_right_it_works_and_says_at_least_once(dsn, limited, caplog):
    now = [0.0]
    sink = make(limited, monotonic=lambda: now[0])
    assert sink.checks() == []
    sink.open()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_record_id_key")
    sent = batch(events(3))
    assert [sink.write(sent).stored for _ in range(2)] == [3, 3]
    assert len(rows(dsn)) == 6
    (risk,) = sink.checks()
    assert risk.startswith("at least once: ")
    assert "CREATE TABLE IF NOT EXISTS collector_batch_proof" in risk
    assert "hunter2" not in risk
    assert make(limited).checks() == [risk]  # the admin asks an object of its own
    assert "At least once" in sink.probe(batch([event(1)]))
    sink.close()
    sink.open()
    now[0] += 61
    sink.write(batch([event(9)]))
    assert [r.levelname for r in caplog.records if "at least once" in r.message] == ["WARNING"]
    sink.close()


def test_it_uses_the_table_of_proofs_as_soon_as_somebody_made_it(dsn, limited):
    now = [0.0]
    sink = make(limited, monotonic=lambda: now[0])
    sink.open()
    sink.write(batch([event(1)]))
    assert sink.checks()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(proofs.DDL.encode())
        connection.execute("GRANT SELECT, INSERT ON collector_batch_proof TO collector_writer")
    now[0] += 61
    sink.write(batch([event(2)]))
    assert "UPDATE" in sink.checks()[0]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("GRANT UPDATE, DELETE ON collector_batch_proof TO collector_writer")
    now[0] += 61
    sent = batch([event(3)])
    assert [sink.write(sent).already_stored for _ in range(2)] == [0, 1]
    assert sink.checks() == []
    sink.close()


def test_a_table_of_proofs_that_was_dropped_is_made_again(dsn, sink):
    sink.write(batch([event(1)]))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE collector_batch_proof")
    sent = batch([event(2)])
    with pytest.raises(SinkFault, match="collector_batch_proof"):
        sink.write(sent)
    assert sink.write(sent).stored == 1
    assert sink.write(sent).already_stored == 1


# --- abort ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hangs_in", ["connect", "write"])
def test_a_server_that_falls_silent_is_left_at_once(dsn, hangs_in):
    with postgres_proxy(dsn) as (through, proxy):
        sink = make(through, connect_timeout_s=120)
        if hangs_in == "write":
            sink.open()
            sink.write(batch([event(0)]))
        proxy.stall()
        sent = batch(events(10))
        delivery = Delivery(sink, sent)
        assert proxy.wait_stalled(WAIT_S)
        sink.abort()
        assert isinstance(delivery.result(), RetryableError)
        proxy.heal()
        assert sink.write(sent).stored == 10
        sink.close()
