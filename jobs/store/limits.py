"""Types' limits, kept across all runners: their rows are locked while one claims by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime

from django.db.models import Count

from jobs.states import QUEUED, RUNNING
from jobs.store import gates
from jobs.store.models import Job, TypeGate
from jobs.store.protocol import Claimed
from jobs.types.spec import TypeSpec


def waiting(types: Collection[int]) -> list[int]:
    """Those of these types that have jobs to claim."""
    return [one for one in types if Job.objects.filter(state=QUEUED, type_id=one).exists()]


def rooms(types: Mapping[int, TypeSpec], limit: int, now: datetime) -> dict[int, int]:
    """Lock the gates of these types, and say how many of each may be claimed.

    Inside a transaction, which `take` ends.
    """
    if not types:
        return {}
    TypeGate.objects.bulk_create(
        [TypeGate(type_id=one, at=now, level=gates.capacity(rule)) for one, rule in types.items()],
        ignore_conflicts=True,
    )
    # In order: two who claim of the same types wait for each other, and do not deadlock.
    rows = list(TypeGate.objects.select_for_update().filter(pk__in=list(types)).order_by("pk"))
    # Asked after the locks are had: what the last holder claimed is counted.
    busy = Job.objects.filter(state=RUNNING, type_id__in=list(types)).order_by()
    running = dict(busy.values_list("type_id").annotate(Count("pk")))
    found = {}
    for row in rows:
        rule = types[row.pk]
        gate = gates.Gate(level=row.level, at_s=row.at.timestamp()).at(rule, now.timestamp())
        found[row.pk] = gates.room(rule, gate, running.get(row.pk, 0), limit)
        if rule.rate_per_s is not None:
            row.level, row.at = gate.level, now
            row.save(update_fields=["level", "at"])
    return found


def take(types: Mapping[int, TypeSpec], claimed: Collection[Claimed]) -> None:
    """What was claimed is taken from the gates that `rooms` has locked."""
    for type_id, jobs in Counter(one.type_id for one in claimed).items():
        if type_id in types and types[type_id].rate_per_s is not None:
            gate = TypeGate.objects.get(pk=type_id)
            TypeGate.objects.filter(pk=type_id).update(level=gate.level - jobs)
