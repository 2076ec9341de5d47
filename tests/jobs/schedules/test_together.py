"""Many processes look at the same schedules at once: threads with connections of their own here."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connections

from jobs.schedules.firing import Firing
from jobs.store.database import DatabaseStore
from jobs.store.models import Job, JobEvent
from jobs.types import catalogue
from jobs.types.models import JobSchedule, JobType

LOOKERS, SCHEDULES, HOURS = 4, 3, 5
START = datetime(2026, 5, 1, 10, 30, tzinfo=UTC)
WAIT_S = 60


@pytest.mark.concurrency
@pytest.mark.django_db(transaction=True)
def test_each_time_of_each_schedule_is_submitted_once():
    kind = JobType.objects.create(name="report")
    for number in range(SCHEDULES):
        JobSchedule.objects.create(name=f"s{number}", type=kind, cron=f"{number} * * * *")
    catalogue.refresh()
    at = [START]
    together = threading.Barrier(LOOKERS)
    fired, failures = [0] * LOOKERS, []

    def look(number: int) -> None:
        firing = Firing(store=DatabaseStore(), now=lambda: at[0])
        try:
            for _ in range(HOURS + 1):
                if together.wait(WAIT_S) == 0:
                    at[0] += timedelta(hours=1)
                together.wait(WAIT_S)
                fired[number] += beat(firing)
        except Exception as error:
            failures.append(error)
            together.abort()
        finally:
            connections.close_all()

    def beat(firing: Firing) -> int:
        while True:
            try:
                return firing.beat()
            except OperationalError:
                continue  # the file was locked: as the thread of upkeep, look again

    threads = [threading.Thread(target=look, args=(number,)) for number in range(LOOKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert failures == []
    # The first round finds them new, and sets when they come.
    assert sum(fired) == SCHEDULES * HOURS
    told = set(Job.objects.values_list("schedule", "correlation_id"))
    assert Job.objects.count() == len(told) == SCHEDULES * HOURS
    assert JobEvent.objects.count() == SCHEDULES * HOURS
    last = set(JobSchedule.objects.values_list("last_job", flat=True))
    assert last == set(Job.objects.order_by("-id").values_list("pk", flat=True)[:SCHEDULES])
