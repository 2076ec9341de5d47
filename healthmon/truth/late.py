"""Incidents as they would be had no flip come late: found again from a target's flips.

Called inside the sink's transaction, for a target of which flips have come that later ones had
overtaken.  Such a flip may show that an outage began earlier than the incident says, that it was
over in between, or that there was one nobody has heard of.  Nobody is alerted of any of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from healthmon.targets.models import Target
from healthmon.truth.applying import CLOSING, entry_of
from healthmon.truth.changes import Change
from healthmon.truth.machine import DOWN
from healthmon.truth.models import Flip, Incident, IncidentEntry


@dataclass(slots=True)
class Outage:
    """From a flip to down until one that closes it, if there is one."""

    first_seq: int
    opened_at: datetime
    cause: str
    last_seq: int | None = None
    closed_at: datetime | None = None

    def has(self, seq: int) -> bool:
        return self.first_seq <= seq and (self.last_seq is None or seq <= self.last_seq)


def outages(flips: Iterable[tuple[int, str, datetime, str]]) -> list[Outage]:
    """Of flips (seq, status, time, reason) in their order."""
    found: list[Outage] = []
    current: Outage | None = None
    for seq, status, at, reason in flips:
        if status == DOWN and current is None:
            current = Outage(seq, at, reason)
            found.append(current)
        elif status in CLOSING and current is not None:
            current.last_seq, current.closed_at = seq, max(at, current.opened_at)
            current = None
    return found


def rewrite(target: Target, late: Sequence[Change]) -> None:
    """`late` are stored already."""
    flips = Flip.objects.filter(target=target)
    first_seq = min(change.seq for change in late)
    before = flips.filter(seq__lt=first_seq, to_status__in=CLOSING).order_by("-seq")
    base = before.values_list("seq", flat=True).first() or 0
    rows = flips.filter(seq__gt=base).order_by("seq")
    known = list(Incident.objects.filter(target=target, opened_seq__gt=base).order_by("opened_seq"))
    entries: list[IncidentEntry] = []
    for outage in outages(rows.values_list("seq", "to_status", "at", "reason").iterator(500)):
        told = next((one for one in known if outage.has(one.opened_seq)), None)
        incident = _fitted(told, outage) if told is not None else _made(target, outage)
        entries += [_line(incident, outage, change) for change in late if outage.has(change.seq)]
    IncidentEntry.objects.bulk_create(entries)


def _fitted(incident: Incident, outage: Outage) -> Incident:
    fitting = (outage.first_seq, outage.opened_at, outage.closed_at)
    if (incident.opened_seq, incident.opened_at, incident.closed_at) != fitting:
        incident.opened_seq, incident.opened_at, incident.closed_at = fitting
        incident.save(update_fields=["opened_seq", "opened_at", "closed_at"])
    return incident


def _made(target: Target, outage: Outage) -> Incident:
    return Incident.objects.create(
        target=target,
        opened_at=outage.opened_at,
        closed_at=outage.closed_at,
        opened_seq=outage.first_seq,
        cause=outage.cause,
        severity=target.severity,
    )


def _line(incident: Incident, outage: Outage, change: Change) -> IncidentEntry:
    kinds = {outage.first_seq: "opened", outage.last_seq: "closed"}
    return entry_of(incident, change, kinds.get(change.seq, "flip"))
