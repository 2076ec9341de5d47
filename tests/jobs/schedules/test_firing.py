"""Each time of a schedule is submitted once: whoever looks, and whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DataError

from jobs.schedules.firing import Firing
from jobs.states import RUNNING, SUCCEEDED
from jobs.store.memory import MemoryStore
from jobs.store.models import Job
from jobs.types import catalogue
from jobs.types.models import JobSchedule, JobType

pytestmark = pytest.mark.django_db

START = datetime(2026, 5, 1, 10, 30, tzinfo=UTC)


class Wall:
    """A clock on the wall that anybody may set."""

    def __init__(self) -> None:
        self.at: datetime = START

    def set(self, at: datetime | None) -> None:
        assert at is not None
        self.at = at

    def __call__(self) -> datetime:
        return self.at


class Stand:
    def __init__(self) -> None:
        self.now = Wall()
        self.store = MemoryStore()
        self.type = JobType.objects.create(name="report", default_priority=7, deadline_s=90)
        catalogue.refresh()

    def schedule(self, **fields: Any) -> JobSchedule:
        given = {"name": "hourly", "cron": "0 * * * *", "payload": {"n": 1}, **fields}
        return JobSchedule.objects.create(type=self.type, **given)

    def firing(self, **more: Any) -> Firing:
        return Firing(**{"store": self.store, "now": self.now, **more})

    def jobs(self) -> list[Any]:
        return [self.store.look(job_id) for job_id in self.store.ids()]


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_a_new_schedule_waits_for_its_next_time(stand: Stand):
    row, firing = stand.schedule(), stand.firing()
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=30)
    stand.now.at = row.next_at - timedelta(microseconds=1)
    assert firing.beat() == 0
    stand.now.set(row.next_at)
    assert firing.beat() == 1
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.last_at == START + timedelta(minutes=30)
    assert row.next_at == START + timedelta(minutes=90)
    (job,) = stand.jobs()
    assert row.last_job == job.id


def test_the_job_is_as_the_schedule_and_its_type_say(stand: Stand):
    stand.schedule(service="billing", tenant="acme", next_at=START.replace(minute=0))
    stand.now.at = START.replace(minute=0)
    stand.firing().beat()
    (job,) = stand.jobs()
    assert job.payload == {"n": 1}
    assert job.schedule == "hourly"
    assert (job.service, job.tenant, job.priority) == ("billing", "acme", 7)
    assert job.deadline_at - job.run_at == timedelta(seconds=90)
    assert job.submitted_by == "schedule hourly"
    assert job.correlation_id == "hourly:2026-05-01T10:00Z"


def test_a_process_that_read_the_row_before_another_fired_does_not_fire(stand: Stand):
    row = stand.schedule()
    other = stand.firing()
    other.beat()
    row.refresh_from_db()
    stand.now.set(row.next_at)
    due = stand.now.at

    def now() -> datetime:
        # Rows have been read by now: somebody else is quicker.
        assert other.beat() == 1
        return due

    assert stand.firing(now=now).beat() == 0
    assert len(stand.jobs()) == 1


def test_many_times_missed_are_submitted_as_one_late_job(stand: Stand):
    row = stand.schedule(next_at=START.replace(hour=3, minute=0))
    firing = stand.firing()
    assert firing.beat() == 1
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=30)


def test_missed_times_are_skipped_where_the_schedule_says_so(stand: Stand):
    row = stand.schedule(missed="skip", next_at=START.replace(minute=0))
    assert stand.firing().beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=30)
    # A time that is late by less than a minute was not missed.
    stand.now.at = row.next_at + timedelta(seconds=59)
    assert stand.firing().beat() == 1


def test_what_comes_while_it_is_disabled_is_not_missed(stand: Stand):
    row, firing = stand.schedule(next_at=START.replace(minute=0), enabled=False), stand.firing()
    assert firing.beat() == 0
    JobSchedule.objects.update(enabled=True)
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=30)


def test_no_second_job_while_the_last_has_not_ended(stand: Stand):
    last = Job.objects.create(type=stand.type, state=RUNNING, created_at=START, run_at=START)
    due = START.replace(minute=0)
    row = stand.schedule(overlap=False, last_job=last.id, next_at=due)
    stand.now.at = due
    firing = stand.firing()
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == due + timedelta(hours=1)
    Job.objects.update(state=SUCCEEDED)
    stand.now.set(row.next_at)
    assert firing.beat() == 1


def test_an_edited_expression_counts_from_the_next_look(stand: Stand):
    row, firing = stand.schedule(cron="0 0 1 1 *"), stand.firing()
    firing.beat()
    JobSchedule.objects.update(cron="45 * * * *")
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=15)


def test_a_time_of_an_expression_that_was_edited_is_not_submitted(stand: Stand):
    row, firing = stand.schedule(), stand.firing()
    firing.beat()
    JobSchedule.objects.update(cron="45 * * * *")
    stand.now.at = START + timedelta(minutes=30)  # the old one's time
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=75)


def test_a_clock_set_back_a_little_does_not_make_a_time_come_twice(stand: Stand):
    row, firing = stand.schedule(), stand.firing()
    firing.beat()
    stand.now.at = START + timedelta(minutes=30)
    assert firing.beat() == 1
    stand.now.at = START - timedelta(minutes=45)
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=90)
    stand.now.at = START + timedelta(minutes=30)
    assert firing.beat() == 0


def test_a_clock_that_was_far_ahead_does_not_silence_a_schedule(stand: Stand):
    row, firing = stand.schedule(), stand.firing()
    stand.now.at = START + timedelta(days=400)
    firing.beat()
    row.refresh_from_db()
    stand.now.set(row.next_at)
    assert firing.beat() == 1
    stand.now.at = START
    assert firing.beat() == 0
    row.refresh_from_db()
    assert row.next_at == START + timedelta(minutes=30)
    stand.now.set(row.next_at)
    assert firing.beat() == 1


def test_a_clock_set_forward_makes_one_job_of_what_was_passed_over(stand: Stand):
    firing = stand.firing()
    stand.schedule()
    firing.beat()
    stand.now.at = START + timedelta(hours=5)
    assert firing.beat() == 1
    assert firing.beat() == 0


def test_it_is_known_when_something_is_due_soon(stand: Stand):
    stand.schedule()
    firing = stand.firing()
    assert firing.run() == 1.0
    stand.now.at = START + timedelta(minutes=30) - timedelta(seconds=0.25)
    assert firing.run() == pytest.approx(0.25)


def fault_of(stand: Stand, firing: Firing) -> str:
    due = START.replace(minute=0)
    stand.now.at = due
    JobSchedule.objects.update(next_at=due)
    assert firing.beat() == 0
    row = JobSchedule.objects.get()
    assert row.next_at == due + timedelta(hours=1)
    return row.last_error


def test_a_disabled_type_is_told_and_the_next_time_awaited(stand: Stand):
    stand.schedule()
    JobType.objects.filter(pk=stand.type.pk).update(enabled=False)
    catalogue.refresh()
    assert fault_of(stand, stand.firing()) == "its job type report is disabled"


def test_a_broken_type_is_told(stand: Stand):
    stand.schedule()
    JobType.objects.filter(pk=stand.type.pk).update(backoff_cap_s=0.0001)
    catalogue.refresh()
    assert "cannot be used" in fault_of(stand, stand.firing())


def test_a_payload_that_does_not_fit_is_told(stand: Stand):
    stand.schedule()
    firing = stand.firing(validate=lambda spec, payload: "/n: is no text")
    assert "does not fit the type report: /n: is no text" in fault_of(stand, firing)


def test_a_job_that_no_database_takes_costs_the_others_nothing(stand: Stand):
    class Refusing(MemoryStore):
        def submit(self, drafts):
            raise DataError("no such number")

    stand.schedule()
    firing = stand.firing(store=Refusing())
    assert "could not be stored: no such number" in fault_of(stand, firing)


def test_an_unusable_expression_is_told_and_costs_the_others_nothing(stand: Stand):
    stand.schedule(name="bad", cron="99 * * * *", next_at=START)
    stand.schedule(name="zone", timezone="Mars/Base")
    stand.schedule(name="good", next_at=START.replace(minute=0))
    stand.now.at = START.replace(minute=0)
    assert stand.firing().beat() == 1
    assert "99 * * * *" in JobSchedule.objects.get(name="bad").last_error
    assert "Mars/Base" in JobSchedule.objects.get(name="zone").last_error
    JobSchedule.objects.filter(name="bad").update(cron="5 * * * *")
    stand.firing().beat()
    assert JobSchedule.objects.get(name="bad").last_error == ""


def test_a_database_that_fails_leaves_the_time_to_be_submitted_later(stand: Stand):
    from django.db import OperationalError

    class Away(MemoryStore):
        def submit(self, drafts):
            raise OperationalError("gone")

    row = stand.schedule(next_at=START.replace(minute=0))
    stand.now.at = START.replace(minute=0)
    with pytest.raises(OperationalError):
        stand.firing(store=Away()).beat()
    row.refresh_from_db()
    assert row.next_at == START.replace(minute=0)
    assert stand.firing().beat() == 1
