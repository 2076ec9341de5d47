"""What people do with incidents: acknowledge, comment, write down what was learnt, read back.

In the control database, from request threads.  Who may is decided by whoever calls.  Incidents are
opened and closed by the `flips` sink alone; what is written here touches other columns than it
does, so that neither undoes the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from healthmon.truth.models import Incident, IncidentEntry

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser as User

COMMENT_CHARS = 5_000
POSTMORTEM_CHARS = 50_000
LINE_CHARS = 1_000


def acknowledge(
    incident: Incident, user: User | None, *, text: str = "", now: datetime | None = None
) -> bool:
    """Somebody sees to it: reminders end.  False when somebody else has said so before."""
    at = now or timezone.now()
    with transaction.atomic():
        free = Incident.objects.filter(pk=incident.pk, acknowledged_at=None)
        if not free.update(acknowledged_at=at, acknowledged_by=_pk(user)):
            incident.refresh_from_db(fields=["acknowledged_at", "acknowledged_by"])
            return False
        _add(incident, "acknowledged", at, user, _clean(text, COMMENT_CHARS))
    incident.acknowledged_at, incident.acknowledged_by_id = at, _pk(user)
    return True


def comment(
    incident: Incident,
    user: User | None,
    text: str,
    *,
    public: bool = False,
    now: datetime | None = None,
) -> IncidentEntry:
    """Add a remark to the timeline.  Raises ValueError for one that says nothing."""
    said = _clean(text, COMMENT_CHARS)
    if not said:
        raise ValueError("a comment needs a text")
    return _add(incident, "comment", now or timezone.now(), user, said, public=public)


def notified(
    incident_ids: Iterable[int], text: str, *, now: datetime | None = None
) -> list[IncidentEntry]:
    """Note that somebody has been told, or could not be; in the caller's transaction."""
    at = now or timezone.now()
    line = _clean(text, LINE_CHARS)
    return IncidentEntry.objects.bulk_create(
        IncidentEntry(incident_id=pk, at=at, kind="notified", text=line) for pk in incident_ids
    )


def write_postmortem(incident: Incident, text: str) -> None:
    """Replace the note on what happened and what is done about it."""
    incident.postmortem = _clean(text, POSTMORTEM_CHARS)
    Incident.objects.filter(pk=incident.pk).update(postmortem=incident.postmortem)


def timeline(incident: Incident) -> list[IncidentEntry]:
    """Its lines with their authors, the oldest first."""
    entries = IncidentEntry.objects.filter(incident=incident).select_related("author")
    return list(entries.order_by("at", "id"))


def _add(
    incident: Incident,
    kind: str,
    at: datetime,
    user: User | None,
    text: str,
    *,
    public: bool = False,
) -> IncidentEntry:
    return IncidentEntry.objects.create(
        incident=incident, at=at, kind=kind, author_id=_pk(user), text=text, public=public
    )


def _clean(text: str, most: int) -> str:
    """As both databases take it.  Raises ValueError when it is too long."""
    cleaned = text.replace("\x00", "\ufffd").strip()
    if len(cleaned) > most:
        raise ValueError(f"the text has {len(cleaned)} characters; at most {most} are kept")
    return cleaned


def _pk(user: User | None) -> int | None:
    return None if user is None else user.pk
