"""What a status page tells: built from the rows at once, with nothing that is not for the public.

No addresses, no causes, no reasons, no internal remarks: of an incident its times, and the remarks
that were marked public.  A constant number of queries, whatever the number of targets.  Runs on
request threads; keeps nothing (`pages.cache` does).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from django.db.models import Q

from healthmon.history import queries
from healthmon.pages.models import StatusPage
from healthmon.targets.models import MaintenanceWindow, Target
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, NEW, PAUSED, UNKNOWN, UP
from healthmon.truth.maintenance import Window, next_start, open_until
from healthmon.truth.models import Incident, IncidentEntry
from healthmon.truth.uptime import Day, Uptime, ribbon, uptime

DAYS = 90
MAX_TARGETS = 500
RECENT = timedelta(days=14)
MAX_INCIDENTS = 50
MAX_UPDATES = 20
ANNOUNCED = timedelta(days=14)
MAX_WINDOWS = 20
UNGROUPED, REST = "Services", "Other services"

WORDS = {
    UP: "Operational",
    DEGRADED: "Degraded",
    DOWN: "Down",
    UNKNOWN: "Not known",
    MAINTENANCE: "Maintenance",
    PAUSED: "Paused",
    NEW: "Not known yet",
}
_SAID = {
    "opened": "The outage was confirmed.",
    "acknowledged": "Somebody is looking into it.",
    "closed": "Recovered.",
}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One target."""

    name: str
    status: str
    since: datetime | None
    days: list[Day]
    uptime: float | None
    # For how long of the days it is known.
    known_s: float
    p95_ms: float | None

    @property
    def word(self) -> str:
        return WORDS[self.status]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    lines: list[Line]


class Update(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    text: str


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as the public sees it."""

    id: int
    target: str
    opened_at: datetime
    closed_at: datetime | None
    updates: list[Update]


class Upkeep(msgspec.Struct, frozen=True, kw_only=True):
    """A maintenance window that is open, or announced."""

    id: int
    title: str
    description: str
    start: datetime | None
    end: datetime | None
    running: bool


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a status page tells."""

    slug: str
    title: str
    description: str
    as_of: datetime
    status: str
    summary: str
    groups: list[Group]
    omitted: int
    open: list[Outage]
    recent: list[Outage]
    upkeep: list[Upkeep]
    show_uptime: bool
    show_incidents: bool
    show_latency: bool
    show_ribbon: bool
    offer_rss: bool
    offer_json: bool

    @property
    def lines(self) -> list[Line]:
        return [line for group in self.groups for line in group.lines]


def build(slug: str, now: datetime) -> Board | None:
    """The page's board; None where there is no such page, or it is not published."""
    page = StatusPage.objects.filter(slug=slug, published=True).first()
    if page is None:
        return None
    found = list(targets_of(page)[: MAX_TARGETS + 1])
    shown = found[:MAX_TARGETS]
    ids = [target.pk for target in shown]
    days = ribbon(ids, days=DAYS, now=now) if page.show_ribbon else {}
    whole = uptime(ids, now - timedelta(days=DAYS), now) if page.show_uptime else {}
    slow = queries.percentiles(ids, now - timedelta(days=1), now) if page.show_latency else {}
    lines = {
        target.pk: _line(
            target,
            days.get(target.pk, []),
            whole.get(target.pk),
            slow[target.pk].p95 if target.pk in slow else None,
        )
        for target in shown
    }
    status, summary = summarise([line.status for line in lines.values()])
    outages = _outages(ids, now) if page.show_incidents else []
    return Board(
        slug=page.slug,
        title=page.title,
        description=page.description,
        # To the minute, so that a page that says the same is the same page.
        as_of=now.replace(second=0, microsecond=0),
        status=status,
        summary=summary,
        groups=_groups(shown, lines, apart=page.show_groups),
        omitted=max(0, targets_of(page).count() - MAX_TARGETS) if len(found) > MAX_TARGETS else 0,
        open=[one for one in outages if one.closed_at is None],
        recent=[one for one in outages if one.closed_at is not None],
        upkeep=_upkeep(shown, now) if page.show_maintenance else [],
        show_uptime=page.show_uptime,
        show_incidents=page.show_incidents,
        show_latency=page.show_latency,
        show_ribbon=page.show_ribbon,
        offer_rss=page.offer_rss,
        offer_json=page.offer_json,
    )


def targets_of(page: StatusPage):  # type: ignore[no-untyped-def]
    """The public targets of the page's groups and tags."""
    chosen = Q(group__in=page.groups.all()) | Q(tags__in=page.tags.all())
    return (
        Target.objects.filter(chosen, public=True)
        .select_related("state", "group")
        .order_by("group__order", "group__name", "name", "pk")
        .distinct()
    )


def summarise(statuses: Sequence[str]) -> tuple[str, str]:
    """The status of all of them, and in words."""
    if not statuses:
        return NEW, "Nothing is shown here yet"
    judged = [status for status in statuses if status in (UP, DEGRADED, DOWN)]
    down = statuses.count(DOWN)
    if down and down == len(judged):
        return DOWN, "Down" if len(statuses) == 1 else "Everything is down"
    if down:
        return DOWN, f"{down} of {len(statuses)} services {'is' if down == 1 else 'are'} down"
    if DEGRADED in statuses:
        count = statuses.count(DEGRADED)
        return (
            DEGRADED,
            f"{count} of {len(statuses)} services {'is' if count == 1 else 'are'} degraded",
        )
    if MAINTENANCE in statuses:
        return MAINTENANCE, "Maintenance is under way"
    if UNKNOWN in statuses:
        return UNKNOWN, "The state of some services is not known"
    if judged:
        return UP, "All services are operational"
    return NEW, "Nothing is known yet"


def _line(target: Target, days: list[Day], whole: Uptime | None, p95_ms: float | None) -> Line:
    state = getattr(target, "state", None)
    return Line(
        name=target.name,
        status=state.status if state else NEW,
        since=state.since if state else None,
        days=days,
        uptime=whole.ratio if whole else None,
        known_s=whole.known_s if whole else 0.0,
        p95_ms=p95_ms,
    )


def _groups(targets: Sequence[Target], lines: dict[int, Line], *, apart: bool) -> list[Group]:
    if not apart:
        return [Group(name=UNGROUPED, lines=list(lines.values()))] if lines else []
    grouped: dict[str, list[Line]] = {}
    for target in targets:
        grouped.setdefault(target.group.name if target.group else "", []).append(lines[target.pk])
    rest = grouped.pop("", [])
    groups = [Group(name=name, lines=found) for name, found in grouped.items()]
    if rest:
        groups.append(Group(name=REST if groups else UNGROUPED, lines=rest))
    return groups


def _outages(ids: Sequence[int], now: datetime) -> list[Outage]:
    if not ids:
        return []
    rows = list(
        Incident.objects.filter(target__in=ids, public=True)
        .filter(Q(closed_at__isnull=True) | Q(closed_at__gte=now - RECENT))
        .select_related("target")
        .order_by("-opened_at", "-pk")[:MAX_INCIDENTS]
    )
    updates: dict[int, list[Update]] = defaultdict(list)
    told = Q(kind__in=_SAID) | Q(kind="comment", public=True)
    entries = IncidentEntry.objects.filter(told, incident__in=[row.pk for row in rows])
    for entry in entries.order_by("at", "pk"):
        text = entry.text if entry.kind == "comment" else _SAID[entry.kind]
        updates[entry.incident_id].append(Update(at=entry.at, text=text))
    return [
        Outage(
            id=row.pk,
            target=row.target.name,
            opened_at=row.opened_at,
            closed_at=row.closed_at,
            updates=updates[row.pk][-MAX_UPDATES:],
        )
        for row in rows
    ]


def _upkeep(targets: Sequence[Target], now: datetime) -> list[Upkeep]:
    ids = [target.pk for target in targets]
    if not ids:
        return []
    groups = {target.group_id for target in targets if target.group_id is not None}
    tags = set(Target.tags.through.objects.filter(target__in=ids).values_list("tag_id", flat=True))
    rows = (
        MaintenanceWindow.objects.filter(
            Q(all_targets=True) | Q(targets__in=ids) | Q(groups__in=groups) | Q(tags__in=tags),
            active=True,
            public=True,
        )
        .order_by("-starts_at", "-pk")
        .distinct()
    )
    found = []
    for row in rows[: MAX_WINDOWS * 5]:
        window = Window.of(row)
        until = open_until(window, now)
        start = None if until is not None else next_start(window, now)
        if until is None and (start is None or start > now + ANNOUNCED):
            continue
        found.append(
            Upkeep(
                id=row.pk,
                title=row.title,
                description=row.description,
                start=start,
                end=until if until is not None else start and start + window.duration,
                running=until is not None,
            )
        )
    found.sort(key=lambda one: (not one.running, one.start or now))
    return found[:MAX_WINDOWS]
