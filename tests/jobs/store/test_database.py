"""What only a database does: minutes, webhooks kept with their job, refusals, and being away."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error, connection, transaction

from control.idempotency.models import DONE, IdempotencyKey
from control.outbox.models import OutboxMessage
from jobs.states import DEAD, QUEUED, SUCCEEDED
from jobs.store.models import Job, JobCount, JobEvent, JobMinute, JobStep, JobTally
from jobs.store.protocol import Ended, KeyedBy, StepRecord, Write
from tests.conftest import ON_POSTGRESQL
from tests.jobs.store.stand import DatabaseStand

pytestmark = pytest.mark.django_db
# Where a transaction of the test's own would keep the store from ending its own.
by_itself = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stand() -> DatabaseStand:
    return DatabaseStand()


def minutes(type_id: int) -> list[tuple[int, ...]]:
    names = ("submitted", "started", "succeeded", "dead", "cancelled", "queued", "running")
    rows = JobMinute.objects.filter(type_id=type_id).order_by("at")
    return [tuple(row) for row in rows.values_list(*names)]


def test_minutes_say_what_happened_and_how_many_waited_at_their_end(stand: DatabaseStand) -> None:
    for _ in range(3):
        stand.submit()
    stand.end(stand.claim_one(), ran_s=1.5)
    stand.clock.advance(60.0)
    stand.claim_one()
    # Both minutes are folded late, and at once.
    stand.clock.advance(60.0)
    assert stand.store.fold() > 0
    assert minutes(stand.one) == [
        (3, 1, 1, 0, 0, 2, 0),
        (0, 1, 0, 0, 0, 1, 1),
        (0, 0, 0, 0, 0, 1, 1),
    ]
    assert JobMinute.objects.order_by("at")[0].seconds == pytest.approx(1.5)
    stand.submit()
    stand.store.fold()
    assert minutes(stand.one)[-1] == (1, 0, 0, 0, 0, 2, 1)


def test_what_is_tried_again_or_forgotten_was_not_submitted(stand: DatabaseStand) -> None:
    stand.again(stand.running(), delay_s=1.0)
    stand.clock.advance(1.0)
    stand.store.promote()
    stand.end(stand.claim_one(), DEAD, reason="x")
    stand.clock.advance(1.0)
    stand.store.fold()
    stand.store.forget(DEAD, stand.now, type_id=None, limit=9)
    stand.store.fold()
    (minute,) = minutes(stand.one)
    assert minute == (1, 2, 0, 1, 0, 0, 0)
    assert not JobEvent.objects.exists()
    assert not JobStep.objects.exists()
    assert set(JobCount.objects.values_list("jobs", flat=True)) == {0}


def test_a_fold_takes_no_more_than_its_share(
    stand: DatabaseStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.counting.MOST", 2)
    for _ in range(5):
        stand.submit()
    assert [stand.store.fold() for _ in range(4)] == [2, 2, 1, 0]
    assert stand.store.counts() == {stand.one: {QUEUED: 5}}
    assert not JobTally.objects.exists()


def webhook(key: str) -> dict[str, Any]:
    return {"dedupe_key": key, "sender": "jobs", "channel": "h", "payload": {"a": 1}}


def test_a_webhook_is_kept_with_the_end_that_it_tells_of(stand: DatabaseStand) -> None:
    job = stand.running()
    assert stand.end(job, webhook=webhook("k1"))
    assert not stand.end(job, webhook=webhook("k2"))
    assert list(OutboxMessage.objects.values_list("dedupe_key", flat=True)) == ["k1"]


@by_itself
def test_a_broken_outbox_takes_the_end_back(stand: DatabaseStand) -> None:
    job = stand.running()
    with pytest.raises(TypeError):
        stand.end(job, webhook={"nonsense": True})
    assert stand.look(job.id).state == "running"
    assert stand.end(job)


def test_a_key_is_written_as_control_reads_it(stand: DatabaseStand) -> None:
    keyed = KeyedBy(key="k", digest="d", status=202, response="{}", keep_s=60.0)
    stand.submit(keyed=keyed, tenant="t")
    row = IdempotencyKey.objects.get()
    assert (row.tenant, row.path, row.key, row.digest) == ("t", "/jobs", "k", "d")
    assert (row.state, row.status, row.response) == (DONE, 202, "{}")
    assert (row.parts, row.kept, row.log_id) == ([], [], "")
    assert (row.claimed_at, row.expires_at) == (stand.now, stand.now + timedelta(seconds=60))


def test_a_submission_is_part_of_its_callers_transaction(stand: DatabaseStand) -> None:
    with transaction.atomic():
        stand.submit()
        transaction.set_rollback(True)
    assert stand.ids() == []
    assert stand.store.counts() == {}


@by_itself
def test_a_broken_write_costs_its_job_and_no_neighbour(
    stand: DatabaseStand, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [stand.running() for _ in range(3)]
    bad = StepRecord(name="a", state="succeeded", status_code=-1)
    writes: list[Write] = [
        Ended(
            id=job.id,
            claim=1,
            state=SUCCEEDED,
            worker="w",
            steps=[bad] if job is jobs[1] else [],
        )
        for job in jobs
    ]
    assert stand.store.write(writes) == [True, False, True]
    assert [stand.look(job.id).state for job in jobs] == [SUCCEEDED, DEAD, SUCCEEDED]
    job = stand.look(jobs[1].id)
    assert (job.reason, job.attempts) == ("permanent", 1)
    assert "cannot be kept" in job.error
    assert stand.store.counts() == stand.counted()
    assert "one by one" in caplog.text


@by_itself
@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has no connection to lose")
def test_a_broken_connection_is_made_anew(stand: DatabaseStand) -> None:
    job = stand.running()
    connection.connection.close()
    with pytest.raises(Error, match="closed"):
        stand.end(job)
    assert stand.end(job)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has no such settings")
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
@by_itself
def test_what_others_ask_by_the_connection_is_planned_as_ever(
    stand: DatabaseStand, within: bool
) -> None:
    names = ("enable_seqscan", "plan_cache_mode", "jit")

    def planned() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT " + ", ".join(f"current_setting('{one}')" for one in names))
            return list(cursor.fetchone())

    before = planned()
    with transaction.atomic() if within else nullcontext():
        for _ in range(5):  # some with what was prepared by then
            stand.end(stand.running())
            assert planned() == before
    assert planned() == before


@by_itself
def test_retention_of_a_type_passes_over_what_others_keep(stand: DatabaseStand) -> None:
    old = Job.objects.filter(type_id=stand.two, state=SUCCEEDED, finished_at__lt=stand.now)
    with connection.cursor() as cursor, transaction.atomic():
        if ON_POSTGRESQL:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        assert "jobs_job_kept" in old.order_by("finished_at").explain()
