"""Who is to be told of an event: the enabled rules, read once for a batch, asked for each event.

Belongs to the thread and the transaction that made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Prefetch

from healthmon.notify.models import Channel, NotificationRule
from healthmon.notify.quiet import quiet_until
from healthmon.targets.models import Target

RANK = {"info": 0, "warning": 1, "critical": 2}
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearer:
    """A channel that is told, by which rule, and when at the earliest."""

    channel_id: int
    rule_id: int
    due_at: datetime
    quiet: bool = False  # that time is the end of quiet hours


class Audience:
    """The rules as they are now, and the tags of the targets in question."""

    def __init__(self, *, target_ids: Iterable[int], now: datetime) -> None:
        self._now = now
        enabled = Channel.objects.filter(enabled=True)
        self._rules = {
            rule.pk: _Rule(rule)
            for rule in NotificationRule.objects.filter(enabled=True)
            .order_by("pk")
            .prefetch_related("tags", "groups", Prefetch("channels", queryset=enabled))
        }
        self._tags = _tags_of(target_ids) if any(r.tags for r in self._rules.values()) else {}

    def hearers(self, target: Target, event: str, severity: str) -> dict[int, Hearer]:
        """By channel; of several rules the one that tells it soonest."""
        found: dict[int, Hearer] = {}
        for rule in self._rules.values():
            if not self._takes(rule, target, event, severity):
                continue
            for channel_id in rule.channels:
                hearer = self._hearer(rule, channel_id)
                known = found.get(channel_id)
                if known is None or hearer.due_at < known.due_at:
                    found[channel_id] = hearer
        return found

    def by_rule(self, rule_id: int | None, channel_id: int, event: str) -> Hearer | None:
        """The hearer by this very rule, if it still names the channel and the event."""
        rule = self._rules.get(rule_id or 0)
        if rule is None or channel_id not in rule.channels or event not in rule.events:
            return None
        return self._hearer(rule, channel_id)

    def _hearer(self, rule: _Rule, channel_id: int) -> Hearer:
        row = rule.row
        soonest = self._now + timedelta(seconds=row.group_wait_s)
        quiet = quiet_until(
            soonest, begins=row.quiet_from, ends=row.quiet_until, time_zone=row.time_zone
        )
        return Hearer(
            channel_id=channel_id,
            rule_id=row.pk,
            due_at=quiet or soonest,
            quiet=quiet is not None,
        )

    def _takes(self, rule: _Rule, target: Target, event: str, severity: str) -> bool:
        return (
            event in rule.events
            and bool(rule.channels)
            and RANK.get(severity, 2) >= rule.least
            and (not rule.groups or target.group_id in rule.groups)
            and (not rule.tags or not rule.tags.isdisjoint(self._tags.get(target.pk, ())))
        )


class _Rule:
    """A rule with what it asks for as sets."""

    def __init__(self, row: NotificationRule) -> None:
        self.row = row
        self.events = frozenset(map(str, row.events)) if isinstance(row.events, list) else ()
        self.least = RANK.get(row.min_severity, 0)
        self.tags = frozenset(tag.pk for tag in row.tags.all())
        self.groups = frozenset(group.pk for group in row.groups.all())
        self.channels = [channel.pk for channel in row.channels.all()]


def _tags_of(target_ids: Iterable[int]) -> dict[int, set[int]]:
    through = Target.tags.through.objects
    found: dict[int, set[int]] = {}
    ids = sorted(set(target_ids))
    for start in range(0, len(ids), _CHUNK):
        rows = through.filter(target_id__in=ids[start : start + _CHUNK])
        for target_id, tag_id in rows.values_list("target_id", "tag_id"):
            found.setdefault(target_id, set()).add(tag_id)
    return found
