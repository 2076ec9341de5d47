"""What is wrong with counters now, for the top of the dashboard.

Runs in request threads; asks for a bounded number of keys, whatever there is.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from control.auth.models import Tenant
from control.ports.panels import Problem, register_problems
from ingest.counters.totals import NO_LABELS, OVERFLOW, key_of, most_counters
from ingest.models import Counter

EXAMINED = 1_000
NAMES_SHOWN = 5
LATELY = timedelta(hours=1)


def register() -> None:
    register_problems(found, name="counters")


def found() -> list[Problem]:
    """Tenants whose increments went to the overflow counter in the last hour."""
    tenants = Tenant.objects.order_by("slug").values_list("slug", flat=True)[:EXAMINED]
    keys = [key_of(tenant, OVERFLOW, NO_LABELS) for tenant in tenants]
    rows = Counter.objects.filter(key__in=keys, last_at__gte=timezone.now() - LATELY)
    full = sorted(rows.values_list("tenant", flat=True))
    if not full:
        return []
    shown = ", ".join(full[:NAMES_SHOWN])
    more = f" and {len(full) - NAMES_SHOWN} more" if len(full) > NAMES_SHOWN else ""
    listed = reverse("admin:ingest_counter_changelist")
    return [
        Problem(
            severity="warning",
            title=f"Counters are added up as {OVERFLOW}",
            cause=f"{shown}{more}: there are {most_counters():,} counters already, which is the "
            "most for a tenant. What new ones count is kept, but not under their names.",
            remedy="Delete counters that nobody needs, use labels with fewer values, or raise "
            "max_counters.",
            url=f"{listed}?{urlencode({'q': OVERFLOW})}",
        )
    ]
