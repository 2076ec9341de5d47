"""The cast of the tests of health's admin: targets with states, flips, incidents, results, leases.

Written as rows, as the sinks would have left them.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from control.partitions import days, tables
from healthmon.history.histogram import Histogram
from healthmon.models import (
    Checker,
    Flip,
    Incident,
    IncidentEntry,
    ProbeResult,
    ProbeSlot,
    Rollup,
    Tag,
    Target,
    TargetGroup,
    TargetState,
)
from healthmon.targets.models import SLOTS
from pipeline.ids import first_id_at

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"
_sequence = itertools.count()


def living_checker(*, seen_ago_s: float = 0.0) -> Checker:
    """A checker that holds every slot; seen long ago, it has died."""
    expires = timezone.now() - timedelta(seconds=seen_ago_s) + timedelta(seconds=10)
    checker = Checker.objects.create(
        id=f"checker-{next(_sequence)}", host="host-a", pid=4711, expires_at=expires
    )
    for slot in range(SLOTS):
        ProbeSlot.objects.update_or_create(
            slot=slot,
            defaults={"holder": checker.pk, "epoch": 1, "taken_at": expires, "expires_at": expires},
        )
    return checker


def make_target(name: str = "", status: str = "", *, ago_s: float = 3_600, **fields: Any) -> Target:
    """A target; with a status, one that a checker has judged `ago_s` seconds ago."""
    tags = fields.pop("tags", ())
    reason = fields.pop("reason", "connection refused" if status == "down" else "")
    values = {
        "name": name or f"target-{next(_sequence)}",
        "kind": "http",
        "address": "http://127.0.0.1:9/health",
        **fields,
    }
    target = Target.objects.create(**values)
    target.tags.set([Tag.objects.get_or_create(name=tag)[0] for tag in tags])
    if status:
        at = timezone.now() - timedelta(seconds=ago_s)
        TargetState.objects.create(target=target, status=status, since=at, seq=1, reason=reason)
        Flip.objects.create(
            target=target, seq=1, from_status="up" if status != "up" else "new",
            to_status=status, at=at, reason=reason,
        )  # fmt: skip
    return target


def group(name: str) -> TargetGroup:
    return TargetGroup.objects.get_or_create(name=name)[0]


def make_incident(target: Target, *, ago_s: float = 3_600, **fields: Any) -> Incident:
    at = timezone.now() - timedelta(seconds=ago_s)
    incident = Incident.objects.create(
        target=target, opened_at=at, opened_seq=next(_sequence) + 100,
        **{"cause": "connection refused", **fields},
    )  # fmt: skip
    IncidentEntry.objects.create(incident=incident, at=at, kind="opened", text=incident.cause)
    return incident


def make_results(target: Target, count: int = 30, *, every_s: float = 30, **fields: Any) -> None:
    """Results with phases; the newest a moment ago."""
    now = timezone.now()
    rows = []
    for number in range(count):
        at = now - timedelta(seconds=every_s * number + 1)
        failed = number % 11 == 10
        total = 20.0 + (number * 7) % 23
        values = {
            "outcome": "failed" if failed else "ok",
            "dns_ms": 1.5, "connect_ms": 3.0, "tls_ms": None,
            "first_byte_ms": None if failed else total - 6,
            "code": 0 if failed else 200, "address": "127.0.0.1",
            "error": "the server closed the connection" if failed else "",
            **fields,
        }  # fmt: skip
        arrived = int(at.timestamp() * 1e6)
        rows.append(
            ProbeResult(
                id=first_id_at(arrived) + next(_sequence) % 4096,
                timestamp=at, target_id=target.pk, latency_ms=total, **values,
            )
        )  # fmt: skip
    wanted = list(days.days_between(rows[-1].pk, rows[0].pk))
    tables.create(connections["records"], ProbeResult._meta.db_table, wanted)
    ProbeResult.objects.bulk_create(rows)


def make_rollups(target: Target, *, hours: int = 24, latency_ms: float = 20.0) -> None:
    """Minutes of the last hours, and hours further back, each with a histogram."""
    now = timezone.now().replace(second=0, microsecond=0)
    hour = now.replace(minute=0)
    rows = [_rollup(target, 60, now - timedelta(minutes=n), n, latency_ms) for n in range(1, 300)]
    rows += [
        _rollup(target, 3600, hour - timedelta(hours=n), n, latency_ms) for n in range(1, hours)
    ]
    Rollup.objects.bulk_create(rows)


def _rollup(target: Target, span_s: int, start: Any, number: int, latency_ms: float) -> Rollup:
    latencies = [latency_ms * (1 + (n % 10) / 10 + (number % 5) / 5) for n in range(20)]
    return Rollup(
        target_id=target.pk, span_s=span_s, start=start, ok=20, failed=1,
        latency_sum_ms=sum(latencies), latency_max_ms=max(latencies),
        histogram=Histogram.of(latencies).to_bytes(),
    )  # fmt: skip
