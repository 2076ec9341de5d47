"""The flips sink with real transactions: at once, in bulk, cut off, and behind the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from healthmon.admin import bulkwrites
from healthmon.targets.models import Target
from healthmon.truth import store
from healthmon.truth.models import Flip, Incident, IncidentEntry, TargetState
from healthmon.truth.sink import BATCH_RECORDS, FlipsSink
from healthmon.truth.stored import FlipStored, register_flip_hook, unregister_flip_hook
from pipeline.errors import RetryableError, SinkFault
from pipeline.sink import Written
from sinks.internal import internal_sinks, internal_types
from tests.healthmon.truth.cast import batch_of, change, heard_flips, make_target

ON_POSTGRESQL = connection.vendor == "postgresql"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def told() -> Iterator[list[FlipStored]]:
    with heard_flips() as heard:
        yield heard


def many(count: int) -> list[Target]:
    Target.objects.bulk_create(Target(name=f"t{n}") for n in range(count))
    return list(Target.objects.order_by("pk"))


def test_a_mass_outage_takes_a_bounded_number_of_statements(told: list[FlipStored]) -> None:
    """Five thousand targets: as many statements for a hundred flips as for a batch of them."""
    targets = many(5_000)
    sink = FlipsSink()
    counts = {}
    for size in (100, BATCH_RECORDS):
        up = [change(one, 1, "new>up", 0) for one in targets[:size]]
        down = [change(one, 2, "up>down", 10) for one in targets[:size]]
        sink.write(batch_of(up))
        with CaptureQueriesContext(connection) as queries:
            assert sink.write(batch_of(down)).stored == size
        counts[size] = len(queries)
        targets = targets[size:]
    assert counts[100] <= 20
    # The parents are asked for 500 at a time; SQLite takes a thousand values a statement.
    assert counts[BATCH_RECORDS] <= counts[100] + (45 if connection.vendor == "sqlite" else 2)
    for start in range(0, len(targets), BATCH_RECORDS):
        chunk = targets[start : start + BATCH_RECORDS]
        sink.write(batch_of([change(one, 1, "new>down", 10) for one in chunk]))
    assert Incident.objects.filter(closed_at=None).count() == 5_000
    assert TargetState.objects.filter(status="down").count() == 5_000
    assert sum(one.opened for one in told) == 5_000


def test_two_deliverers_of_one_log_store_each_flip_once(told: list[FlipStored]) -> None:
    targets = many(200)
    changes = [
        moved
        for one in targets
        for moved in (change(one, 1, "new>up", 0), change(one, 2, "up>down", 10))
    ]
    gate = threading.Barrier(4)
    answers: list[Written] = []
    problems: list[BaseException] = []

    def deliver(number: int) -> None:
        sink = FlipsSink()
        try:
            for start in range(0, len(changes), 40):
                gate.wait(180)
                part = changes[start : start + 40]
                answers.append(sink.write(batch_of(part, log_id=f"log-{number}")))
        except BaseException as error:
            problems.append(error)
            gate.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=deliver, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert problems == []
    assert sum(one.stored for one in answers) == len(changes)
    assert sum(one.already_stored for one in answers) == 3 * len(changes)
    assert Flip.objects.count() == len(changes)
    assert Incident.objects.count() == IncidentEntry.objects.count() == len(targets)
    assert len(told) == len(changes)


def test_a_target_deleted_while_its_flip_is_written_is_tried_again() -> None:
    target, other = many(2)
    sink = FlipsSink()
    batch = batch_of([change(target, 1, "new>down", 0), change(other, 1, "new>down", 0)])

    def deletes(flips: object) -> None:
        # As somebody would who had collected what belongs to the target before the flip came.
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM healthmon_target WHERE id = %s", [target.pk])

    register_flip_hook(deletes, name="deletes")
    try:
        with pytest.raises(RetryableError):
            sink.write(batch)
    finally:
        unregister_flip_hook("deletes")
    assert not Flip.objects.exists()
    Target.objects.filter(pk=target.pk).delete()
    assert sink.write(batch) == Written(stored=2)
    assert [flip.target_id for flip in Flip.objects.all()] == [other.pk]


def wait_until_somebody_waits() -> None:
    """For a lock."""
    with connection.cursor() as cursor:
        for _ in range(100_000):
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchone():
                return
    raise AssertionError("nobody waits")


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one lock for all")
@pytest.mark.parametrize("seen", [False, True], ids=["first flip", "later flip"])
@pytest.mark.parametrize("way", ["row", "rows", "bulk"])
def test_a_target_is_deleted_while_its_flip_is_written(way: str, seen: bool) -> None:
    """What the deletion has not seen when it began does not make it fail at its end."""
    target = make_target()
    if seen:
        FlipsSink().write(batch_of([change(target, 1, "new>up", 0)]))
    problems: list[BaseException] = []

    def deletes() -> None:
        try:
            if way == "row":
                target.delete()
            elif way == "rows":
                Target.objects.filter(pk=target.pk).delete()
            else:
                bulkwrites.delete([target.pk])
        except BaseException as error:
            problems.append(error)
        finally:
            connections.close_all()

    deleting = threading.Thread(target=deletes)

    def begins(flips: object) -> None:
        deleting.start()
        if seen:
            wait_until_somebody_waits()

    register_flip_hook(begins, name="begins")
    try:
        FlipsSink().write(batch_of([change(target.pk, 2, "up>down", 10)]))
    except RetryableError:
        assert not seen  # there was no row to wait for: the deletion may be over before
    finally:
        unregister_flip_hook("begins")
    deleting.join(180)
    assert problems == []
    assert not Target.objects.exists()
    assert not Flip.objects.exists()
    assert not Incident.objects.exists()


def abort_the_sleeper(sink: FlipsSink) -> None:
    """As soon as the server is at it, as another connection sees."""
    asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    try:
        with connection.cursor() as cursor:
            for _ in range(100_000):
                cursor.execute(asleep)
                if cursor.fetchone():
                    break
        sink.abort()
    finally:
        connections.close_all()


def test_a_write_that_hangs_is_aborted() -> None:
    """Its connection is cut, in whatever statement it is; the next write has a new one."""
    target = make_target()
    sink = FlipsSink()

    def hangs(flips: object) -> None:
        # What is aborted is the statement under way.
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                threading.Thread(target=abort_the_sleeper, args=(sink,)).start()
                cursor.execute("SELECT pg_sleep(60)")
            else:
                aborting = threading.Thread(target=sink.abort)
                connection.connection.create_function("aborts", 0, aborting.start)
                cursor.execute(
                    "WITH RECURSIVE n(i) AS (SELECT aborts() UNION ALL SELECT 1 FROM n) "
                    "SELECT count(*) FROM n"
                )

    register_flip_hook(hangs, name="hangs")
    try:
        with pytest.raises(RetryableError):
            sink.write(batch_of([change(target, 1, "new>down", 0)]))
    finally:
        unregister_flip_hook("hangs")
    assert not Flip.objects.exists()
    assert sink.write(batch_of([change(target, 1, "new>down", 0)])) == Written(stored=1)


def test_a_database_that_is_away_is_the_moments_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "connect", away)
    connection.close()
    with pytest.raises(RetryableError, match="connection refused"):
        FlipsSink().write(batch_of([change(1, 1, "new>down", 0)]))


def test_a_table_that_is_not_there_is_the_sinks_fault() -> None:
    def asks(flips: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM no_such_table")

    register_flip_hook(asks, name="asks")
    try:
        with pytest.raises(SinkFault):
            FlipsSink().write(batch_of([change(make_target(), 1, "new>down", 0)]))
    finally:
        unregister_flip_hook("asks")


def test_the_writers_thread_keeps_no_place_of_others() -> None:
    """On a server's database the connection is given back after each batch."""
    target = make_target()
    left: list[bool] = []

    def deliver() -> None:
        FlipsSink().write(batch_of([change(target, 1, "new>up", 0)]))
        left.append(connection.connection is not None)
        connections.close_all()

    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join(180)
    assert left == [connection.vendor == "sqlite"]


def test_the_flow_is_registered_and_never_gives_up() -> None:
    assert "flip" in internal_types()
    [flow] = [one for one in internal_sinks() if one.name == "flips"]
    spec = flow.spec()
    assert spec.required
    assert spec.settings.max_workers == 1
    assert spec.settings.retry.max_attempts is None
    assert spec.settings.retry.max_age_s is None
    assert spec.settings.max_records <= BATCH_RECORDS
    # Whoever waits for an alert waits for neither a breaker nor a database that has gone silent.
    assert spec.settings.breaker.open_s <= 2.0
    assert spec.settings.attempt_timeout_s <= 10.0


def test_a_state_row_that_another_made_first_is_taken() -> None:
    one = make_target()
    TargetState.objects.create(target=one)
    with transaction.atomic():
        assert set(store._locked_states([one.pk])) == {one.pk}
