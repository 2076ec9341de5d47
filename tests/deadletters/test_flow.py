"""The whole way with the real engine and real sinks: refused, kept, corrected, redriven, stored."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import UTC, datetime

import psycopg
import pytest
from django.db import OperationalError

from pipeline.errors import PartialFailure, PermanentError
from sinks.backends.memory import MemorySink
from sinks.deadletters import box, decisions, tally, tasks
from sinks.deadletters.importer import import_spool
from sinks.deadletters.runner import Runner
from sinks.deadletters.selection import Selection
from sinks.deadletters.service import DeadLetterService
from sinks.models import DeadLetter, DeadLetterTally, RedriveTask, SinkConfig
from sinks.service import SinkService
from tests.deadletters.letters import letter
from tests.sinks.records import record, records

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 180.0
MEMORY = "sinks.backends.memory.MemorySink"
POSTGRES = "sinks.backends.postgres.PostgresSink"


@pytest.fixture(autouse=True)
def _own_data_dir(settings, tmp_path):
    server = dataclasses.replace(settings.COLLECTOR.server, data_dir=tmp_path)
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, server=server)
    SinkConfig.objects.all().delete()


@pytest.fixture
def service():
    service = SinkService(on_report=lambda text: None)
    yield service
    service.stop(10.0)


def now() -> datetime:
    return datetime.now(UTC)


def redrive(service: SinkService, selection: Selection) -> RedriveTask:
    (task,) = decisions.redrive(selection, who="ann")
    runner = Runner(owner="test", engine=lambda: service.engine, now=now)
    runner.look()
    assert runner.join(WAIT_S)
    task.refresh_from_db()
    return task


def memory(service: SinkService, **pipeline: object) -> SinkConfig:
    row = SinkConfig.objects.create(
        name="kept", backend=MEMORY, pipeline={"max_wait_s": 0.0, **pipeline}
    )
    service.start("test")
    assert service.engine.offer(type="log", tenant="default", records=records(1)).wait(WAIT_S)
    return row


def balanced(service: SinkService) -> None:
    assert [row["imbalance"] for row in service.stats()["ledger"]] == [0] * len(
        service.stats()["ledger"]
    )
    for row in DeadLetterTally.objects.all():
        assert row.imbalance == 0
        assert tally.differences(row.sink) == {}


def test_a_check_constraint_is_met_after_an_edit(service, postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE orders (amount int CONSTRAINT positive CHECK (amount >= 0), note text)"
        )
    SinkConfig.objects.create(
        name="orders",
        backend=POSTGRES,
        options={
            "dsn": postgres_dsn,
            "table": "orders",
            "columns": {"amount": "payload.amount", "note": "message"},
        },
        pipeline={"max_wait_s": 0.0},
    )
    service.start("test")
    sent = [record({"amount": -5 if n == 37 else n}, message=f"order {n}") for n in range(100)]
    assert service.engine.offer(type="log", tenant="default", records=sent).wait(WAIT_S)

    letter = DeadLetter.objects.get()
    assert letter.state == "waiting"
    assert "positive" in letter.error
    assert json.loads(letter.payload)["amount"] == -5
    assert amounts(postgres_dsn) == sorted(n for n in range(100) if n != 37)
    balanced(service)

    again = redrive(service, Selection())
    assert (again.state, again.refused, again.stored) == ("done", 1, 0)
    letter.refresh_from_db()
    assert (letter.state, letter.redrives) == ("waiting", 1)

    decisions.edit(letter.pk, '{"amount": 37, "message": "order 37, corrected"}', who="ann")
    task = redrive(service, Selection(ids=(letter.pk,)))
    assert (task.state, task.refused, task.stored) == ("done", 0, 1)
    assert amounts(postgres_dsn) == list(range(100))
    letter.refresh_from_db()
    assert letter.state == "redriven"
    balanced(service)


def amounts(dsn: str) -> list[int]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [row[0] for row in connection.execute("SELECT amount FROM orders ORDER BY amount")]


def test_the_same_chunk_sent_twice_is_stored_once(service):
    """As after a kill: the answer of the first sending was never written down."""
    row = memory(service)
    sink = MemorySink.named("kept")
    sink.fail_next(PartialFailure(dict.fromkeys(range(50), "no")))
    assert service.engine.offer(type="log", tenant="a", records=records(50)).wait(WAIT_S)
    assert DeadLetter.objects.count() == 50
    (task,) = decisions.redrive(Selection(), who="ann")
    killed = tasks.claim("killed", now=now())
    assert killed is not None
    chunk = tasks.next_chunk(killed, now=now())
    assert chunk is not None
    done = threading.Event()
    service.engine.redrive(
        str(row.pk),
        origin=killed.origin,
        number=chunk.number,
        letters=chunk.letters,
        on_done=lambda result: done.set(),
    )
    assert done.wait(WAIT_S)
    assert sink.stored == 51
    RedriveTask.objects.update(lease_until=now())
    runner = Runner(owner="test", engine=lambda: service.engine, now=now)
    runner.look()
    assert runner.join(WAIT_S)
    task.refresh_from_db()
    assert (task.state, task.stored, task.already_stored) == ("done", 0, 50)
    assert sink.stored == 51
    assert {one.id for one in sink.records} >= {one.record_id for one in chunk.letters}
    balanced(service)


def test_poison_that_is_not_named_is_found_by_halves(service):
    memory(service)
    sink = MemorySink.named("kept")
    sink.fail_next(PartialFailure(dict.fromkeys(range(8), "no")))
    assert service.engine.offer(type="log", tenant="a", records=records(8)).wait(WAIT_S)
    sink.fail_next(PermanentError("one of these"), PermanentError("one of those"))
    task = redrive(service, Selection())
    assert task.state == "done"
    assert task.stored + task.refused == 8
    assert sink.stored == 1 + task.stored
    balanced(service)


def test_without_its_database_letters_take_the_spool(service, monkeypatch):
    memory(service)
    sink = MemorySink.named("kept")

    def away(some: object) -> int:
        raise OperationalError("no route to host")

    monkeypatch.setattr(box._rooms.database(), "_keep", away)
    sink.fail_next(PartialFailure({1: "no"}))
    assert service.engine.offer(type="log", tenant="a", records=records(3)).wait(WAIT_S)
    assert DeadLetter.objects.count() == 0
    assert len(box.spool().files()) == 1
    assert import_spool(box.spool()) == 1
    assert DeadLetter.objects.get().error == "no"
    balanced(service)


def test_a_sink_whose_letters_go_into_a_file(service, tmp_path):
    memory(service, dead_letters="file")
    MemorySink.named("kept").fail_next(PartialFailure({0: "bad", 2: "worse"}))
    assert service.engine.offer(type="log", tenant="a", records=records(3)).wait(WAIT_S)
    assert DeadLetter.objects.count() == 0
    (path,) = (tmp_path / "deadletters").glob("kept-*.ndjson")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["error"] for one in found] == ["bad", "worse"]


def test_the_service_imports_redrives_and_stops(service):
    row = memory(service)
    sink = MemorySink.named("kept")
    sink.fail_next(PartialFailure({0: "no"}))
    assert service.engine.offer(type="log", tenant="a", records=records(2)).wait(WAIT_S)
    letters = DeadLetterService(engine=lambda: service.engine if service.running else None)
    letters.start("command")
    assert letters._runner is None
    letters.start("test")
    letters.start("test")
    box.spool().append([letter(str(row.pk))])
    letters.begin_import()
    importing = letters._importing
    if importing is not None:
        importing.join(WAIT_S)
    assert DeadLetter.objects.count() == 2
    decisions.redrive(Selection(), who="ann")
    runner = letters._runner
    assert runner is not None
    runner.look()
    assert runner.join(WAIT_S)
    assert sink.stored == 1 + 2
    service.stop(10.0)
    letters.stop(10.0)
    letters.stop(10.0)
    assert RedriveTask.objects.filter(owner="").count() == RedriveTask.objects.count()


def test_a_stop_of_the_engine_in_the_middle_of_a_redrive(service):
    memory(service)
    sink = MemorySink.named("kept")
    sink.fail_next(PartialFailure(dict.fromkeys(range(5), "no")))
    assert service.engine.offer(type="log", tenant="a", records=records(5)).wait(WAIT_S)
    letters = DeadLetterService(engine=lambda: service.engine if service.running else None)
    letters.start("test")
    decisions.redrive(Selection(), who="ann")
    sink.hold()
    runner = letters._runner
    assert runner is not None
    runner.look()
    assert sink.join_writing()
    service.stop(2.0)
    letters.stop(10.0)
    task = RedriveTask.objects.get()
    assert (task.owner, task.state) == ("", "running")
    assert DeadLetter.objects.filter(state="redriving").count() == 5
    service.start("test")
    runner = Runner(owner="next", engine=lambda: service.engine, now=now)
    runner.look()
    assert runner.join(WAIT_S)
    task.refresh_from_db()
    assert (task.state, task.stored) == ("done", 5)
