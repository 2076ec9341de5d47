"""What a refused client is told of besides the counts: jobs for later, and who runs jobs at all.

Asked for at most once a second, and only when there are many jobs.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from jobs.states import SCHEDULED
from jobs.store.models import Job, Runner
from jobs.store.story import database_now

# A job that its client wants run no sooner than this is one for later.
LATER_S = 60.0
# A runner that missed its beats for so many leases lives no more.
_LEASES_SILENT = 2


def for_later(most: int) -> int:
    """How many wait for a time their clients named, and not for another attempt; at most `most`."""
    after = database_now() + timedelta(seconds=LATER_S)
    waiting = Job.objects.filter(state=SCHEDULED, run_at__gt=after, claim=0).order_by()
    return waiting[:most].count()


def runner_lives() -> bool:
    silent = timedelta(seconds=settings.COLLECTOR.jobs.lease_s * _LEASES_SILENT)
    return Runner.objects.filter(seen_at__gte=database_now() - silent).order_by().exists()
