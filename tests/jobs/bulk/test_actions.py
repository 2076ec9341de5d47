"""Bulk actions carried out: all that match and no more, once, whoever dies in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobs.bulk import tasks
from jobs.bulk.models import BulkAction
from jobs.bulk.selection import Selection
from jobs.bulk.tasks import Fenced
from jobs.bulk.worker import BulkWorker
from jobs.models import Job, JobEvent
from jobs.states import CANCELLED, DEAD, DISCARDED, QUEUED, SUCCEEDED
from jobs.store.database import store
from jobs.store.protocol import Changed, Verb
from tests.jobs.admin.cast import make_job, make_type

pytestmark = pytest.mark.django_db
WAIT_S = 60.0


def now() -> datetime:
    """A moment after all that was submitted so far: ids tick in milliseconds."""
    return datetime.now(UTC) + timedelta(milliseconds=2)


def worker(process: str = "p", kept: Any = None) -> BulkWorker:
    return BulkWorker(process=process, store=lambda: kept or store(), now=now)


def carried_out(row: BulkAction, kept: Any = None) -> BulkAction:
    held = tasks.claim("p", now=now())
    assert held is not None
    assert held.pk == row.pk
    worker(kept=kept).carry_out(held)
    row.refresh_from_db()
    return row


def test_all_that_match_are_changed_and_nothing_else() -> None:
    order, other = make_type("order"), make_type("other")
    dead = [make_job(order, DEAD) for _ in range(3)]
    kept = [make_job(order, SUCCEEDED), make_job(other, DEAD)]

    row = tasks.begin("retry", Selection(state=DEAD, type="order"), asked_by=None, now=now())
    done = carried_out(row)

    states = dict(Job.objects.values_list("pk", "state"))
    assert [states[one.pk] for one in dead] == [QUEUED] * 3
    assert [states[one.pk] for one in kept] == [SUCCEEDED, DEAD]
    assert (done.looked_at, done.changed, done.error, done.owner) == (done.expected, 3, "", "")
    assert done.finished_at is not None


def test_jobs_submitted_after_the_operator_looked_are_not_touched() -> None:
    order = make_type("order")
    make_job(order, DEAD)
    row = tasks.begin(
        "discard", Selection(state=DEAD), asked_by=None, now=datetime.now(UTC) - timedelta(hours=1)
    )

    assert carried_out(row).looked_at == 0
    assert not Job.objects.filter(state=DISCARDED).exists()


def test_chosen_jobs_whoever_asked_is_named_in_their_events(django_user_model: Any) -> None:
    row = make_type()
    jobs = [make_job(row) for _ in range(3)]
    asked_by = django_user_model.objects.create_user("ann")
    begun = tasks.begin(
        "cancel", Selection(ids=tuple(one.pk for one in jobs[:2])), asked_by=asked_by, now=now()
    )

    done = carried_out(begun)

    assert (done.expected, done.changed) == (2, 2)
    assert Job.objects.filter(state=CANCELLED).count() == 2
    text = JobEvent.objects.filter(job_id=jobs[0].pk).latest("pk").text
    assert f"ann (bulk action {begun.pk})" in text


def test_a_priority_is_one_that_there_is() -> None:
    for args in ({}, {"priority": 10}, {"priority": "9"}, {"priority": None}):
        with pytest.raises(ValueError, match="whole number"):
            tasks.begin("reprioritise", Selection(), asked_by=None, now=now(), args=args)
    job = make_job(make_type())
    row = tasks.begin("reprioritise", Selection(), asked_by=None, now=now(), args={"priority": 9})

    carried_out(row)

    job.refresh_from_db()
    assert job.priority == 9


def test_who_is_taken_for_dead_changes_nothing_more_and_another_goes_on() -> None:
    row = make_type()
    jobs = [make_job(row, DEAD) for _ in range(4)]
    action = tasks.begin("discard", Selection(), asked_by=None, now=now())
    first = tasks.claim("one", now=now())
    assert first is not None
    assert tasks.claim("two", now=now()) is None  # it is held
    tasks.step(first, store(), now=now(), batch=2)

    second = tasks.claim("two", now=now() + tasks.LEASE + timedelta(seconds=1))

    assert second is not None
    with pytest.raises(Fenced):
        tasks.step(first, store(), now=now(), batch=2)
    worker("two").carry_out(second)
    action.refresh_from_db()
    assert (action.looked_at, action.changed) == (4, 4)
    assert action.finished_at is not None
    assert Job.objects.filter(state=DISCARDED).count() == len(jobs)


def test_stopped_it_keeps_what_it_did() -> None:
    row = make_type()
    for _ in range(4):
        make_job(row, DEAD)
    action = tasks.begin("discard", Selection(), asked_by=None, now=now())
    held = tasks.claim("one", now=now())
    assert held is not None
    tasks.step(held, store(), now=now(), batch=2)

    assert tasks.stop(action.pk, now=now())
    worker().carry_out(held)

    action.refresh_from_db()
    assert action.finished_at is not None
    assert (action.looked_at, Job.objects.filter(state=DEAD).count()) == (2, 2)
    assert not tasks.stop(action.pk, now=now())


def test_stopped_before_anybody_took_it_it_has_ended() -> None:
    action = tasks.begin("discard", Selection(), asked_by=None, now=now())

    tasks.stop(action.pk, now=now())

    action.refresh_from_db()
    assert action.finished_at is not None
    assert tasks.claim("one", now=now()) is None


def test_a_row_that_cannot_be_understood_ends_with_the_reason() -> None:
    bad = BulkAction.objects.create(
        action="discard", selection={"filters": {"colour": "red"}}, created_at=now()
    )

    assert tasks.claim("one", now=now()) is None

    bad.refresh_from_db()
    assert "not known" in bad.error
    assert bad.finished_at is not None


class Failing:
    """A store that fails once."""

    def __init__(self) -> None:
        self.failed = False

    def change(
        self, verb: Verb, ids: Sequence[UUID], *, by: str, args: Mapping[str, Any] | None = None
    ) -> dict[UUID, Changed]:
        if not self.failed:
            self.failed = True
            raise RuntimeError("no room")
        return store().change(verb, ids, by=by, args=args)


def test_a_failure_is_told_and_tried_again_after_the_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_job(make_type(), DEAD)
    action = tasks.begin("discard", Selection(), asked_by=None, now=now())
    kept = Failing()

    failed = carried_out(action, kept)

    assert failed.error == "RuntimeError: no room"
    assert failed.finished_at is None
    assert tasks.claim("two", now=now()) is None
    held = tasks.claim("two", now=now() + 2 * tasks.LEASE)
    assert held is not None
    worker(kept=kept).carry_out(held)
    action.refresh_from_db()
    assert (action.error, action.changed) == ("", 1)


def test_old_actions_are_forgotten() -> None:
    for days in (1, 100):
        ended = now() - timedelta(days=days)
        BulkAction.objects.create(
            action="retry", selection={"ids": []}, created_at=ended, finished_at=ended
        )

    tasks.forget(now=now())

    assert BulkAction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_thread_of_a_process_carries_out_all_that_waits() -> None:
    row = make_type()
    for _ in range(3):
        make_job(row, DEAD)
    make_job(row, QUEUED)
    for action in ("discard", "cancel"):
        tasks.begin(action, Selection(), asked_by=None, now=now())
    working = worker()

    working.look()

    assert working.join(WAIT_S)
    assert not tasks.waiting()
    assert sorted(Job.objects.values_list("state", flat=True)) == [CANCELLED, *[DISCARDED] * 3]
    working.look()  # nothing to do: no thread
    assert working.stop(WAIT_S)
