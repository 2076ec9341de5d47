"""From the notices of one message to what its channel is told.  Reads tags; else pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from healthmon.notify import wording
from healthmon.notify.kind import MAX_EVENTS, Event, Notification
from healthmon.notify.models import RECOVERED, Notice, NotificationRule
from healthmon.targets.models import Target

OPEN_INCIDENTS = "/admin/healthmon/incident/?state=open"
NOTES_CHARS = 2_000


def notification_of(notices: Sequence[Notice], rule: NotificationRule | None) -> Notification:
    """All of them in one; what has begun and ended meanwhile is told as both, in this order."""
    tags = _tags([one.target_id for one in notices[:MAX_EVENTS]])
    events = [_event(one, tags.get(one.target_id, [])) for one in notices[:MAX_EVENTS]]
    summary = any(one.held == Notice.QUIET for one in notices)
    told = [(one.event, one.target.name) for one in notices]
    return Notification(
        title=wording.title(events, told=told, summary=summary),
        events=events,
        count=len(notices),
        counts=wording.counts_of([event for event, _ in told]),
        rule=rule.name if rule is not None else "",
        path=events[0].path if len(notices) == 1 else OPEN_INCIDENTS,
        summary_of_quiet_hours=summary,
    )


def _event(notice: Notice, tags: list[str]) -> Event:
    target: Target = notice.target
    details = notice.details
    since = details.get("since")
    lasted = None
    if since:
        lasted = max(0.0, (notice.at - datetime.fromisoformat(since)).total_seconds())
    path = f"/admin/healthmon/target/{target.pk}/change/"
    if notice.incident_id is not None:
        path = f"/admin/healthmon/incident/{notice.incident_id}/change/"
    return Event(
        key=notice.key,
        event=notice.event,
        target=target.name,
        target_id=target.pk,
        address=target.address,
        status=details.get("status", ""),
        previous=details.get("previous", ""),
        severity=details.get("severity", ""),
        reason=details.get("reason", ""),
        at=notice.at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        duration_s=lasted,
        incident_id=notice.incident_id,
        group=target.group.name if target.group is not None else "",
        tags=tags,
        notes=target.notes[:NOTES_CHARS] if notice.event != RECOVERED else "",
        path=path,
    )


def _tags(target_ids: list[int]) -> dict[int, list[str]]:
    rows = Target.tags.through.objects.filter(target__in=target_ids).order_by("tag__name")
    found: dict[int, list[str]] = {}
    for target_id, name in rows.values_list("target_id", "tag__name"):
        found.setdefault(target_id, []).append(name)
    return found
