"""From notices to messages: what is due of one rule and channel becomes one message in the outbox.

A source of the outbox, called on its thread before each look, in every process that delivers.  A
group is taken in one transaction, its rows locked (SQLite has one writer anyway), so that each
notice gets into one message, once.  Whether it is still to be told is decided here, as late as
can be: by parents that are down, quiet hours, incidents that are over or acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from django.db import transaction
from django.db.models import Q

from control.outbox.enqueue import enqueue
from control.outbox.models import CANCELLED, FAILED, OutboxMessage
from healthmon.notify.models import (
    RECOVERED,
    REMINDER,
    TROUBLES,
    Channel,
    Notice,
    NotificationRule,
)
from healthmon.notify.quiet import quiet_until
from healthmon.notify.saying import notification_of
from healthmon.notify.waits import wait_until
from healthmon.truth.incidents import notified
from healthmon.truth.parents import down_parents

SENDER = "notify"
MAX_GROUPS = 200
MAX_GATHERED = 5_000
PARENT_CHECK = timedelta(seconds=30)
# A child is seen to recover a little after its parent.
GRACE = timedelta(seconds=60)
UNHEARD = "The channel had not been told of the trouble."
_CHUNK = 500
_T = TypeVar("_T")


def compose_due(now: datetime) -> int:
    """Make the messages that are due; returns how many."""
    due = Notice.objects.filter(state=Notice.WAITING, due_at__lte=now).order_by()
    groups = list(due.values_list("rule_id", "channel_id").distinct()[:MAX_GROUPS])
    return sum(_compose(rule_id, channel_id, now) for rule_id, channel_id in groups)


def _compose(rule_id: int | None, channel_id: int, now: datetime) -> bool:
    with transaction.atomic():
        notices = _take(rule_id, channel_id, now)
        if not notices:
            return False
        channel = notices[0].channel
        rule = notices[0].rule
        quiet = _quiet(rule, now)
        if not channel.enabled:
            _drop(notices, "The channel is switched off.")
            return False
        if quiet is not None:
            _hold(notices, Notice.QUIET, quiet)
            return False
        later = wait_until(notices, rule, channel_id, now)
        if later is not None:
            _hold(notices, "", later)
            return False
        telling = _still_to_tell(notices, now)
        if not telling:
            return False
        _enqueue(telling, rule, channel, now)
    return True


def _take(rule_id: int | None, channel_id: int, now: datetime) -> list[Notice]:
    """The first that is due ends the wait of all that wait for nothing else."""
    waiting = Notice.objects.filter(state=Notice.WAITING, rule=rule_id, channel=channel_id)
    rows = waiting.filter(Q(due_at__lte=now) | Q(held="")).order_by("at", "pk")
    locked = list(rows.select_for_update().values_list("pk", "due_at")[:MAX_GATHERED])
    if not any(due_at <= now for _, due_at in locked):
        return []  # another process has just told them
    found: list[Notice] = []
    for pks in _chunks([pk for pk, _ in locked]):
        found += (
            Notice.objects.filter(pk__in=pks)
            .select_related("channel", "rule", "incident", "target__group")
            .order_by("at", "pk")
        )
    return found


def _still_to_tell(notices: list[Notice], now: datetime) -> list[Notice]:
    """Hold those whose parents are down, drop what is no longer true; the rest."""
    troubles = [one for one in notices if one.event in (*TROUBLES, REMINDER)]
    blamed = down_parents({one.target_id for one in troubles}) if troubles else {}
    by_parent = [one for one in troubles if one.target_id in blamed]
    _hold(by_parent, Notice.PARENT, now + PARENT_CHECK)
    graced = [one for one in troubles if one.target_id not in blamed and one.held == Notice.PARENT]
    _hold(graced, Notice.GRACE, now + GRACE)
    held = {one.pk for one in (*by_parent, *graced)}
    rest = [one for one in notices if one.pk not in held]
    unheard = _unheard(rest, held={one.key for one in notices if one.pk in held})
    dropped: dict[str, list[Notice]] = {}
    telling = []
    for one in rest:
        why = _void(one, unheard)
        if why:
            dropped.setdefault(why, []).append(one)
        else:
            telling.append(one)
    for why, ones in dropped.items():
        _drop(ones, why)
        if why == UNHEARD:
            _note_unheard(ones)
    return telling


def _void(notice: Notice, unheard: set[str]) -> str:
    """Why a notice is not told after all."""
    incident = notice.incident
    if notice.event == RECOVERED and notice.key in unheard:
        return UNHEARD
    if notice.event == REMINDER and incident is not None:
        if incident.closed_at is not None:
            return "The incident was over."
        if incident.acknowledged_at is not None:
            return "The incident was acknowledged."
    if notice.event in TROUBLES and notice.held == Notice.GRACE and not notice.is_open:
        return "It was over before its parent was."
    return ""


def _unheard(notices: Iterable[Notice], *, held: set[str]) -> set[str]:
    """Keys of recoveries whose every trouble was held back, or whose sending was never tried.

    What was tried and failed may have arrived: its end is told.
    """
    about = {
        one.key: set(one.details.get("about", ())) for one in notices if one.event == RECOVERED
    }
    keys = sorted(set().union(*about.values())) if about else []
    states: dict[str, tuple[str, str]] = {}
    for chunk in _chunks(keys):
        rows = Notice.objects.filter(key__in=chunk)
        states |= {key: (s, m) for key, s, m in rows.values_list("key", "state", "message_key")}
    messages = sorted({message for _, message in states.values() if message})
    untried: set[str] = set()
    for chunk in _chunks(messages):
        ended = OutboxMessage.objects.filter(
            dedupe_key__in=chunk, state__in=(FAILED, CANCELLED), attempts=0
        )
        untried |= set(ended.values_list("dedupe_key", flat=True))
    heard = {
        key
        for key, (state, message) in states.items()
        if state != Notice.DROPPED and key not in held and message not in untried
    }
    return {key for key, troubles in about.items() if not troubles & heard}


def _enqueue(
    notices: list[Notice], rule: NotificationRule | None, channel: Channel, now: datetime
) -> None:
    told = notification_of(notices, rule)
    key = _message_key(notices)
    incidents = sorted({one.incident_id for one in notices if one.incident_id is not None})
    enqueue(
        dedupe_key=key,
        sender=SENDER,
        channel=str(channel.pk),
        channel_name=channel.name,
        subject=told.title,
        payload={"told": msgspec.to_builtins(told), "incidents": incidents},
        now=now,
    )
    for pks in _chunks([one.pk for one in notices]):
        Notice.objects.filter(pk__in=pks).update(state=Notice.TOLD, told_at=now, message_key=key)


def _message_key(notices: list[Notice]) -> str:
    """A single notice's own; of several, one that they make together."""
    if len(notices) == 1:
        return notices[0].key
    joined = "\n".join(sorted(one.key for one in notices))
    digest = hashlib.sha256(joined.encode()).hexdigest()[:40]
    return f"{notices[0].channel_id}:group:{digest}"


def _quiet(rule: NotificationRule | None, now: datetime) -> datetime | None:
    if rule is None:
        return None
    return quiet_until(now, begins=rule.quiet_from, ends=rule.quiet_until, time_zone=rule.time_zone)


def _hold(notices: list[Notice], held: str, until: datetime) -> None:
    for pks in _chunks([one.pk for one in notices]):
        Notice.objects.filter(pk__in=pks).update(held=held, due_at=until)


def _drop(notices: list[Notice], why: str) -> None:
    for pks in _chunks([one.pk for one in notices]):
        Notice.objects.filter(pk__in=pks).update(state=Notice.DROPPED, is_open=False, why=why)


def _note_unheard(recoveries: list[Notice]) -> None:
    """Into the timelines: nobody is left to wonder whether the channel was told."""
    ids = {one.incident_id for one in recoveries if one.incident_id is not None}
    name = recoveries[0].channel.name
    notified(sorted(ids), f"{name} was not told of the end, as no message of the trouble was sent")


def _chunks(items: list[_T]) -> Iterable[list[_T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
