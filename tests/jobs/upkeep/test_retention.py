"""What of the past goes, and when: by state, by type, a bounded piece at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from control.config.settings import JobsSettings
from jobs.states import CANCELLED, DEAD, DISCARDED, QUEUED, SUCCEEDED
from jobs.store.database import DatabaseStore
from jobs.store.models import Job, JobEvent, JobMinute, JobStep
from jobs.types.models import JobType
from jobs.upkeep import retention
from jobs.upkeep.retention import AGAIN_S, Retention, Rule, rules

pytestmark = pytest.mark.django_db

KEEP = JobsSettings(succeeded_days=7, dead_days=90, cancelled_days=3, minutes_days=14)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def types() -> tuple[JobType, JobType]:
    JobType.objects.all().delete()
    return JobType.objects.create(name="one"), JobType.objects.create(name="two")


def job(type: JobType, state: str, finished_at: datetime | None, **fields: Any) -> Job:
    begun = timezone.now() - timedelta(days=400)
    row = Job.objects.create(
        type=type, state=state, created_at=begun, run_at=begun, finished_at=finished_at, **fields
    )
    JobEvent.objects.create(job=row, at=begun, state=state)
    JobStep.objects.create(job=row, name="s", state="succeeded")
    return row


def forget(now: datetime, *, budget_left: bool = True) -> float | None:
    passing = iter(range(10_000))
    return Retention(
        store=DatabaseStore(),
        now=lambda: now,
        monotonic=(lambda: 0.0) if budget_left else (lambda: 100.0 * next(passing)),
        jobs=KEEP,
    ).run()


@pytest.mark.parametrize(
    ("state", "days"), [(SUCCEEDED, 7), (DEAD, 90), (CANCELLED, 3), (DISCARDED, 3)]
)
def test_each_state_has_its_days(state: str, days: int, now, types):
    old = job(types[0], state, now - timedelta(days=days, seconds=1))
    new = job(types[0], state, now - timedelta(days=days, seconds=-60))
    assert forget(now) is None
    assert list(Job.objects.all()) == [new]
    assert not JobEvent.objects.filter(job_id=old.pk).exists()
    assert not JobStep.objects.filter(job_id=old.pk).exists()


def test_a_job_that_has_not_ended_stays_however_old(now, types):
    job(types[0], QUEUED, None)
    forget(now)
    assert Job.objects.count() == 1


def test_a_type_may_keep_longer_or_shorter(now, types):
    one, two = types
    JobType.objects.filter(pk=one.pk).update(keep_succeeded_days=30)
    JobType.objects.filter(pk=two.pk).update(keep_succeeded_days=1)
    kept = job(one, SUCCEEDED, now - timedelta(days=20))
    job(two, SUCCEEDED, now - timedelta(days=2))
    kept_too = job(two, DEAD, now - timedelta(days=2))
    forget(now)
    assert set(Job.objects.all()) == {kept, kept_too}


def test_a_type_may_keep_nothing(now, types):
    JobType.objects.filter(pk=types[0].pk).update(keep_succeeded_days=0)
    job(types[0], SUCCEEDED, now - timedelta(minutes=1))
    forget(now)
    assert not Job.objects.exists()


def test_one_rule_does_for_all_types_that_say_nothing_of_their_own(types):
    assert [rule for rule in rules(KEEP) if rule.state == SUCCEEDED] == [
        Rule(state=SUCCEEDED, type_id=None, days=7)
    ]
    JobType.objects.filter(pk=types[0].pk).update(keep_succeeded_days=30)
    # What is of no type that is known goes when nobody would keep it any more.
    assert [(rule.type_id, rule.days) for rule in rules(KEEP) if rule.state == SUCCEEDED] == [
        (types[0].pk, 30),
        (types[1].pk, 7),
        (None, 30),
    ]


def test_much_is_forgotten_a_piece_at_a_time(now, types, monkeypatch):
    monkeypatch.setattr(retention, "BATCH_JOBS", 2)
    for _ in range(5):
        job(types[0], SUCCEEDED, now - timedelta(days=8))
        job(types[0], DEAD, now - timedelta(days=91))
    assert forget(now, budget_left=False) == AGAIN_S
    # Each state has had its turn: one that is late does not starve the others.
    assert Job.objects.filter(state=SUCCEEDED).count() == 3
    assert Job.objects.filter(state=DEAD).count() == 3
    assert forget(now) is None
    assert not Job.objects.exists()


def test_minutes_go_too(now, types, monkeypatch):
    monkeypatch.setattr(retention, "BATCH_MINUTES", 2)
    for days in (13, 15, 16, 17):
        JobMinute.objects.create(type=types[0], at=now - timedelta(days=days))
    assert forget(now, budget_left=False) == AGAIN_S
    assert JobMinute.objects.count() == 2
    assert forget(now) is None
    assert JobMinute.objects.count() == 1


def test_the_counts_know_what_went(now, types):
    store = DatabaseStore()
    from jobs.store.protocol import Draft

    store.submit([Draft(type_id=types[0].pk, payload={})])
    (row,) = Job.objects.all()
    store.change("cancel", [row.pk], by="somebody")
    Job.objects.update(finished_at=now - timedelta(days=4))
    assert store.counts()[types[0].pk].get(CANCELLED) == 1
    forget(now)
    assert not store.counts().get(types[0].pk, {}).get(CANCELLED)
