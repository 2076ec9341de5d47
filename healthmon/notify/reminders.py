"""What is told again and again, or by the calendar: reminders of incidents, expiring certificates.

Tasks of the checker that keeps house, on its thread; and what is forgotten in time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from healthmon.notify.audience import Hearer
from healthmon.notify.models import DOWN, FLAPPING, REMINDER, Notice
from healthmon.notify.noticing import notice_of, on_certificates
from healthmon.notify.quiet import quiet_until
from healthmon.targets.models import Target

INTERVAL_S = 30.0
CALENDAR_INTERVAL_S = 600.0
MOST_REMINDED = 2_000
# A certificate's last days, each told once.
MARKS_DAYS = (14, 7, 3, 1, 0)
NOTICES_KEPT = timedelta(days=30)
_CHUNK = 500
_MOST_CHUNKS = 20


def remind(now: datetime | None = None) -> int:
    """Make the reminders that are due; returns how many.

    Of those that were missed (nobody kept house, quiet hours) only the last is made.
    """
    at = now or timezone.now()
    heard = (
        Notice.objects.filter(
            is_open=True,
            state=Notice.TOLD,
            event__in=(DOWN, FLAPPING),
            incident__closed_at=None,
            incident__acknowledged_at=None,
            incident__isnull=False,
            channel__enabled=True,
            rule__enabled=True,
            rule__reminder_every_s__gt=0,
        )
        .select_related("rule", "incident", "target")
        .order_by("pk")
    )
    made = 0
    for notice in heard.iterator(chunk_size=_CHUNK):
        made += _remind(notice, at)
        if made >= MOST_REMINDED:
            break  # the others are next: these are not due again so soon
    return made


def _remind(notice: Notice, now: datetime) -> bool:
    rule, incident = notice.rule, notice.incident
    if rule is None or incident is None or notice.told_at is None:
        return False
    number = int((now - notice.told_at).total_seconds() // rule.reminder_every_s)
    if number <= notice.reminders:
        return False
    if quiet_until(now, begins=rule.quiet_from, ends=rule.quiet_until, time_zone=rule.time_zone):
        return False
    with transaction.atomic():
        again = Notice.objects.filter(pk=notice.pk, reminders=notice.reminders, is_open=True)
        if not again.update(reminders=number):
            return False
        reminder = notice_of(
            notice.target,
            f"{REMINDER}:{number}",
            Hearer(channel_id=notice.channel_id, rule_id=rule.pk, due_at=now),
            subject=f"i{incident.pk}",
            at=now,
            now=now,
            reason=incident.cause,
            incident=incident,
            since=incident.opened_at.isoformat(),
            status="down",
        )
        reminder.event = REMINDER
        Notice.objects.bulk_create([reminder], ignore_conflicts=True)
    return True


def look_at_calendar(now: datetime | None = None) -> None:
    """Certificates that pass a mark, and notices that are forgotten."""
    at = now or timezone.now()
    last = at + timedelta(days=max(MARKS_DAYS))
    rows = Target.objects.filter(state__cert_expires_at__lte=last, paused=False)
    expiring = []
    for target in rows.select_related("state", "group").order_by("pk").iterator(chunk_size=_CHUNK):
        expires = target.state.cert_expires_at
        if expires is None:
            continue
        left = (expires - at).total_seconds() / 86_400
        mark = min(days for days in MARKS_DAYS if left <= days or days == max(MARKS_DAYS))
        expiring.append((target, expires, mark if left > 0 else 0))
    if expiring:
        on_certificates(expiring, at)
    forget_old(at)


def forget_old(now: datetime) -> int:
    """Delete notices that have ended; those of troubles that last stay."""
    old = Notice.objects.filter(
        ~Q(state=Notice.WAITING), is_open=False, created_at__lt=now - NOTICES_KEPT
    )
    count = 0
    for _ in range(_MOST_CHUNKS):
        pks = list(old.order_by().values_list("pk", flat=True)[:_CHUNK])
        Notice.objects.filter(pk__in=pks).delete()
        count += len(pks)
        if len(pks) < _CHUNK:
            break
    return count
