"""Two connections at once: who waits for whom, and who is told what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from jobs.states import QUEUED, RUNNING, SUCCEEDED
from jobs.store.models import Job, JobTally
from jobs.store.protocol import Draft, Ended, KeyedBy, Repeated
from tests.conftest import ON_POSTGRESQL
from tests.jobs.store.stand import DatabaseStand

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.concurrency]

# On SQLite a transaction that has begun to write keeps everybody else waiting until it ends.
only_postgresql = pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one writer at a time")


@pytest.fixture
def stand() -> DatabaseStand:
    return DatabaseStand()


@contextmanager
def others(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads with connections of their own, closed in the end."""
    with ThreadPoolExecutor(count) as pool:
        yield pool
        barrier = threading.Barrier(count)

        def close() -> None:
            barrier.wait(30)
            connection.close()

        for done in [pool.submit(close) for _ in range(count)]:
            done.result(30)


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(30)
        return call(number)

    with others(count) as pool:
        return [done.result(60) for done in [pool.submit(begin, n) for n in range(count)]]


def test_threads_that_claim_at_once_share_the_jobs(stand: DatabaseStand) -> None:
    ids = [stand.submit() for _ in range(60)]

    def claim(_: int) -> list[Any]:
        mine: list[Any] = []
        while claimed := stand.claim(7):
            mine += claimed
        return mine

    claimed = [job for mine in at_once(4, claim) for job in mine]
    assert sorted(job.id for job in claimed) == sorted(ids)
    assert {job.claim for job in claimed} == {1}


def test_a_limit_is_kept_by_all_who_claim_at_once(stand: DatabaseStand) -> None:
    few = stand.make_type("few", max_concurrent=5, rate_per_s=100.0, burst=8)
    for _ in range(40):
        stand.submit(few)
    claimed = [job for mine in at_once(4, lambda _: stand.claim(3)) for job in mine]
    assert len(claimed) == 5
    for job in claimed:
        stand.end(job)
    assert sum(len(mine) for mine in at_once(4, lambda _: stand.claim(3))) == 3


def test_a_key_is_taken_once_however_many_come_at_once(stand: DatabaseStand) -> None:
    def submit(number: int) -> Repeated | None:
        key = KeyedBy(key="k", digest="d", status=202, response=str(number), keep_s=60.0)
        (answer,) = stand.store.submit([Draft(type_id=stand.one, payload={}, keyed=key)])
        return answer

    answers = at_once(4, submit)
    assert answers.count(None) == 1
    first = str(answers.index(None))
    assert {one.response for one in answers if one is not None} == {first}
    assert Job.objects.count() == 1


def test_of_a_write_and_a_rescue_one_has_its_way(stand: DatabaseStand) -> None:
    jobs = []
    for _ in range(20):
        stand.submit()
        jobs += stand.claim(1)

    def either(number: int) -> Any:
        if number:
            return stand.store.rescue("r1", beats=0, lost_at={})
        return [stand.end(job) for job in jobs]

    ended, rescued = at_once(2, either)
    assert sum(ended) + rescued == 20
    states = dict.fromkeys((one.id for one in jobs), QUEUED)
    states |= {job.id: SUCCEEDED for job, kept in zip(jobs, ended, strict=True) if kept}
    assert dict(Job.objects.values_list("pk", "state")) == states
    assert stand.store.counts() == stand.counted()


def test_of_a_claim_and_a_rescue_no_job_is_left_behind(stand: DatabaseStand) -> None:
    for _ in range(30):
        stand.submit()

    def either(number: int) -> Any:
        if number:
            return stand.store.rescue("r1", beats=0, lost_at={})
        while stand.claim(1):
            pass
        return None

    at_once(2, either)
    assert not Job.objects.filter(state=RUNNING).exists()
    assert Job.objects.filter(state=QUEUED).count() == 30


def test_changes_of_the_same_jobs_do_not_deadlock(stand: DatabaseStand) -> None:
    for _ in range(40):
        stand.submit()
    jobs = stand.claim(40)
    ids = [job.id for job in jobs]

    def either(number: int) -> Any:
        if number == 0:
            writes = [Ended(id=one.id, claim=1, state=SUCCEEDED, worker="w") for one in jobs]
            return stand.store.write(list(reversed(writes)))
        if number == 1:
            return stand.store.change("cancel", list(reversed(ids)), by="ann")
        return stand.store.change("reprioritise", ids, by="bob", args={"priority": number})

    written, *_ = at_once(4, either)
    assert written == [True] * 40
    assert stand.store.counts() == stand.counted() == {stand.one: {SUCCEEDED: 40}}


def test_folding_at_once_loses_nothing(stand: DatabaseStand) -> None:
    def either(number: int) -> None:
        for _ in range(15):
            if number < 2:
                stand.submit()
            else:
                stand.store.fold()

    at_once(4, either)
    assert stand.store.counts() == {stand.one: {QUEUED: 30}}
    while stand.store.fold():
        pass
    assert stand.store.counts() == {stand.one: {QUEUED: 30}}
    assert not JobTally.objects.exists()


@only_postgresql
def test_a_tally_that_is_not_committed_yet_is_folded_later(stand: DatabaseStand) -> None:
    with others(1) as other, transaction.atomic():
        stand.submit()  # its tally has the lower number
        other.submit(stand.submit).result(30)
        assert other.submit(stand.store.fold).result(30) == 1
    assert stand.store.counts() == {stand.one: {QUEUED: 2}}
    assert stand.store.fold() == 1
    assert stand.store.counts() == {stand.one: {QUEUED: 2}}


@only_postgresql
def test_what_another_is_claiming_is_skipped(stand: DatabaseStand) -> None:
    first, second = stand.submit(), stand.submit()
    with others(1) as other, transaction.atomic():
        assert [job.id for job in stand.claim(1)] == [first]
        claimed = other.submit(stand.claim, 1).result(30)
        assert [job.id for job in claimed] in ([second], [])
    assert stand.look(first).claim == 1


@only_postgresql
def test_who_listens_is_told_when_the_transaction_is_through(stand: DatabaseStand) -> None:
    import psycopg

    settings = connection.get_connection_params()
    named = {
        name: settings[name]
        for name in ("host", "port", "user", "password", "dbname")
        if settings.get(name)
    }
    with psycopg.connect(**named, autocommit=True) as listener:
        listener.execute("LISTEN collector_jobs")
        with transaction.atomic():
            job = stand.submit()
            assert not list(listener.notifies(timeout=0))
        assert [told.payload for told in listener.notifies(timeout=30, stop_after=1)] == ["queued"]
        stand.claim()
        stand.store.change("cancel", [job], by="ann")
        assert [told.payload for told in listener.notifies(timeout=30, stop_after=1)] == ["cancel"]
