"""Pings into the control database: the list beside each target, and what was last heard of it.

In one transaction a batch, under the locks of its targets' heartbeat rows, taken in the order of
their ids.  The id of a ping's record decides: one that is known already, or older than the newest
that counted, changes nothing but the list.  Called on sinks' worker threads; keeps in memory only
how many pings each target got since its list was last cut (`_lock`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from healthmon.heartbeats.models import Heartbeat, Ping
from healthmon.heartbeats.pings import FAIL, START
from healthmon.targets.models import Target

KEPT = 100
# The list is cut after so many new ones, so that most batches need not look.
CUT_EVERY = 20
COUNTED_TARGETS = 20_000
_FIELDS = [
    "seq",
    "last_ping_at",
    "last_start_at",
    "last_success_at",
    "last_fail_at",
    "last_exit_code",
    "last_status",
    "last_error",
    "last_duration_ms",
    "updated_at",
]


@dataclass(slots=True, kw_only=True)
class Arrived:
    """One ping that came in; `duration_ms` is what its sender told, or what `fold` measured."""

    record_id: int
    target_id: int
    at: datetime
    kind: str
    exit_code: int | None = None
    remote: str = ""
    body: str = ""
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch: new ones, known ones, and those whose target is gone."""

    new: int
    known: int
    homeless: int


def failure_said(exit_code: int | None) -> str:
    """Why a ping of the kind `fail` is a failure."""
    return "it said that it failed" if exit_code is None else f"it ended with exit code {exit_code}"


def fold(row: Heartbeat, one: Arrived) -> bool:
    """Let a ping count; False when a newer one has."""
    if one.record_id <= row.seq:
        return False
    if one.kind == START:
        row.last_start_at = one.at
    else:
        if row.last_status == START and row.last_start_at is not None:
            one.duration_ms = max(0.0, (one.at - row.last_start_at).total_seconds() * 1000)
        row.last_duration_ms = one.duration_ms
        row.last_exit_code = one.exit_code
        row.last_error = failure_said(one.exit_code) if one.kind == FAIL else ""
        if one.kind == FAIL:
            row.last_fail_at = one.at
        else:
            row.last_success_at = one.at
    row.seq, row.last_ping_at, row.last_status = one.record_id, one.at, one.kind
    return True


class PingStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since_cut: dict[int, int] = {}

    def take(self, arrived: Iterable[Arrived]) -> Taken:
        """Store them; raises django.db.Error, and then nothing was."""
        pings = sorted(arrived, key=lambda one: one.record_id)
        asked = {one.target_id for one in pings}
        now = timezone.now()
        with transaction.atomic(using="default"):
            there = set(Target.objects.filter(pk__in=asked).values_list("pk", flat=True))
            rows = self._locked(there, now)
            ours = [one for one in pings if one.target_id in rows]
            listed = Ping.objects.filter(
                target_id__in=rows, record_id__in={one.record_id for one in ours}
            )
            known = set(listed.values_list("target_id", "record_id"))
            new = [one for one in ours if (one.target_id, one.record_id) not in known]
            changed = {one.target_id for one in new if fold(rows[one.target_id], one)}
            self._list(new)
            for target_id in changed:
                rows[target_id].updated_at = now
            Heartbeat.objects.bulk_update(
                [rows[target_id] for target_id in sorted(changed)], _FIELDS, batch_size=200
            )
            self._cut(new)
        return Taken(len(new), len(ours) - len(new), len(pings) - len(ours))

    def _locked(self, target_ids: set[int], now: datetime) -> dict[int, Heartbeat]:
        rows = self._select(target_ids)
        missing = sorted(target_ids - rows.keys())
        if missing:
            Heartbeat.objects.bulk_create(
                [Heartbeat(target_id=target_id, updated_at=now) for target_id in missing],
                ignore_conflicts=True,
            )
            rows |= self._select(set(missing))
        return rows

    def _select(self, target_ids: set[int]) -> dict[int, Heartbeat]:
        chosen = Heartbeat.objects.select_for_update().filter(pk__in=target_ids)
        return {row.target_id: row for row in chosen.order_by("pk")}

    def _list(self, new: list[Arrived]) -> None:
        """Of many for one target only those that its list will keep."""
        kept: list[Arrived] = []
        count: dict[int, int] = {}
        for one in reversed(new):
            count[one.target_id] = count.get(one.target_id, 0) + 1
            if count[one.target_id] <= KEPT:
                kept.append(one)
        Ping.objects.bulk_create(
            [
                Ping(
                    target_id=one.target_id,
                    record_id=one.record_id,
                    at=one.at,
                    kind=one.kind,
                    exit_code=one.exit_code,
                    remote=one.remote,
                    body=one.body,
                    duration_ms=one.duration_ms,
                )
                for one in reversed(kept)
            ],
            batch_size=500,
            ignore_conflicts=True,
        )

    def _cut(self, new: list[Arrived]) -> None:
        for target_id in self._due_for_cut(new):
            newest = Ping.objects.filter(target_id=target_id).order_by("-record_id")
            last = newest.values_list("record_id", flat=True)[KEPT - 1 : KEPT].first()
            if last is not None:
                Ping.objects.filter(target_id=target_id, record_id__lt=last).delete()

    def _due_for_cut(self, new: list[Arrived]) -> list[int]:
        due = []
        with self._lock:
            for one in new:
                # The first that this process sees: who knows how many there are.
                count = self._since_cut.get(one.target_id, CUT_EVERY) + 1
                self._since_cut[one.target_id] = count
            for target_id in {one.target_id for one in new}:
                if self._since_cut[target_id] >= CUT_EVERY:
                    self._since_cut[target_id] = 0
                    due.append(target_id)
            while len(self._since_cut) > COUNTED_TARGETS:
                del self._since_cut[next(iter(self._since_cut))]
        return sorted(due)
