"""How long a group waits for more: the rule's own time at first, and twice as long each time that
the channel has just been told of the same.

A thousand targets that recover within a minute are then a few messages, while the first word of
anything new comes as soon as the rule says: each kind of event is counted by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Count

from healthmon.notify.models import Notice, NotificationRule

REMEMBERED = timedelta(minutes=10)
LONGEST_S = 120.0
_MOST_DOUBLINGS = 20


def wait_until(
    notices: Iterable[Notice], rule: NotificationRule | None, channel_id: int, now: datetime
) -> datetime | None:
    """Until when notices that are due wait for more of the same; None when they are told now."""
    if rule is None or rule.group_wait_s <= 0:
        return None
    oldest: dict[str, datetime] = {}
    for one in notices:
        if one.held and one.due_at <= now:
            return None  # it has waited for something else, and long enough
        if not one.held:
            oldest[one.event] = min(one.created_at, oldest.get(one.event, one.created_at))
    if not oldest:
        return None
    told = _messages_of_late(rule.pk, channel_id, now)
    until = min(
        since + timedelta(seconds=growing(rule.group_wait_s, told.get(event, 0)))
        for event, since in oldest.items()
    )
    return until if until > now else None


def growing(wait_s: float, messages: int) -> float:
    """Seconds to wait when so many messages have told of the same of late."""
    return max(wait_s, min(wait_s * 2.0 ** min(messages, _MOST_DOUBLINGS), LONGEST_S))


def _messages_of_late(rule_id: int, channel_id: int, now: datetime) -> dict[str, int]:
    of_late = Notice.objects.filter(
        created_at__gte=now - REMEMBERED,
        rule=rule_id,
        channel=channel_id,
        state=Notice.TOLD,
        told_at__gte=now - REMEMBERED,
    )
    counted = of_late.order_by().values("event").annotate(n=Count("message_key", distinct=True))
    return dict(counted.values_list("event", "n"))
