"""The status of a target as people are shown it: a word, a colour, since when, and why.

What the row says is believed only while a checker looks: when the lease of a target's slot has
long expired, its status is `unknown`, whatever was true before.  Runs in request threads; the
leases are read once a request and passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Case, Count, IntegerField, Q, Value, When
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from healthmon.leases.models import ProbeSlot
from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.models import SLOTS, Target, slot_of
from healthmon.truth.machine import (
    DEGRADED,
    DOWN,
    MAINTENANCE,
    NEW,
    PAUSED,
    UNKNOWN,
    UP,
)
from healthmon.truth.models import TargetState

# Problems first; what is as it should be last.
ORDER = (DOWN, DEGRADED, UNKNOWN, NEW, UP, MAINTENANCE, PAUSED)
# These do not depend on anyone looking.
_STAND = (NEW, PAUSED, MAINTENANCE)
LEASES_MISSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Which slots nobody has looked after, and since when; None where nobody ever has."""

    abandoned: Mapping[int, datetime | None]

    @property
    def all_abandoned(self) -> bool:
        return len(self.abandoned) >= SLOTS

    def watches(self, target: Target) -> bool:
        return target.slot not in self.abandoned


def watch(now: datetime | None = None) -> Watch:
    """The leases as they are now; one query."""
    lease_s = settings.COLLECTOR.monitoring.lease_s
    latest = (now or timezone.now()) - timedelta(seconds=LEASES_MISSED * lease_s)
    expires = dict(ProbeSlot.objects.values_list("slot", "expires_at"))
    return Watch(
        abandoned={
            slot: expires.get(slot)
            for slot in range(SLOTS)
            if (ends := expires.get(slot)) is None or ends < latest
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A target's status as it is shown."""

    status: str
    since: datetime | None = None
    reason: str = ""
    flapping: bool = False


def state_of(target: Target) -> TargetState | None:
    """The stored state; None for a target that no checker has judged yet."""
    try:
        return target.state
    except TargetState.DoesNotExist:
        return None


def shown(target: Target, watching: Watch) -> Shown:
    state = state_of(target)
    if target.paused:
        since = state.since if state is not None and state.status == PAUSED else None
        return Shown(status=PAUSED, since=since)
    if state is None or state.status == NEW:
        reason = "" if watching.watches(target) else "No checker is running."
        waiting = "Not heard of yet." if _is_passive(target.kind) else "Not probed yet."
        return Shown(status=NEW, reason=reason or waiting)
    if state.status not in _STAND and not watching.watches(target):
        since = watching.abandoned[target.slot]
        words = f"since {timezone.localtime(since):%Y-%m-%d %H:%M} UTC" if since else "yet"
        return Shown(
            status=UNKNOWN,
            since=since,
            reason=f"No checker has looked {words}; it was {state.status} before.",
        )
    return Shown(
        status=state.status, since=state.since, reason=state.reason, flapping=state.flapping
    )


def _is_passive(kind: str) -> bool:
    try:
        return kind_of(kind).probe is None
    except KindError:
        return False


def mark(status: str, *, flapping: bool = False, word: str = "") -> SafeString:
    """The status as a word with a shape and a colour of its own."""
    kind = status if status in ORDER else UNKNOWN
    words = word or status
    return format_html(
        '<span class="status status-{}"><i aria-hidden="true"></i>{}</span>',
        kind,
        f"{words}, flapping" if flapping else words,
    )


def rank() -> Case:
    """How far up in the list a target stands, by what the rows say."""
    told = [
        When(state__status=status, then=Value(place))
        for place, status in enumerate(ORDER)
        if status != PAUSED
    ]
    return Case(
        When(paused=True, then=Value(ORDER.index(PAUSED))),
        *told,
        default=Value(ORDER.index(NEW)),
        output_field=IntegerField(),
    )


def having(status: str, watching: Watch) -> Q:
    """The targets that are shown with this status."""
    if status == PAUSED:
        return Q(paused=True)
    awake = Q(paused=False)
    if status == NEW:
        return awake & (Q(state__isnull=True) | Q(state__status=NEW))
    told = awake & Q(state__status=status)
    if status in _STAND or not watching.abandoned:
        return told
    forgotten = awake & Q(state__isnull=False) & ~Q(state__status__in=_STAND)
    if not watching.all_abandoned:
        ids = [
            pk
            for pk in Target.objects.filter(forgotten).values_list("pk", flat=True)
            if slot_of(pk) in watching.abandoned
        ]
        forgotten &= Q(pk__in=ids)
    return told | forgotten if status == UNKNOWN else told & ~forgotten


def counts(watching: Watch) -> dict[str, int]:
    """How many targets are shown with each status; one query, or two while some slots are lost."""
    found = dict.fromkeys(ORDER, 0)
    kinds = Target.objects.order_by().values_list("paused", "state__status")
    for paused, status, count in kinds.annotate(count=Count("pk")):
        found[_told(paused, status, watching.all_abandoned)] += count
    if watching.abandoned and not watching.all_abandoned:
        awake = Target.objects.filter(paused=False, state__isnull=False)
        judged = awake.exclude(state__status__in=_STAND)
        for pk, status in judged.values_list("pk", "state__status"):
            if slot_of(pk) in watching.abandoned:
                found[status] -= 1
                found[UNKNOWN] += 1
    return found


def _told(paused: bool, status: str | None, abandoned: bool) -> str:
    if paused:
        return PAUSED
    if status is None or status not in ORDER:
        return NEW
    return UNKNOWN if abandoned and status not in _STAND else status
