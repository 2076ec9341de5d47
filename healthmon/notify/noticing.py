"""From what happened to notices: one for each channel that is to hear of it.

Hooks, called inside the transaction that stores the flips (or fires the alert), on its thread:
notices are kept or lost with them.  Nothing is sent here.

Changes of a target that flaps are held: it is told once that it flaps, and how it stands when that
is over.  A recovery goes to those channels that were told of the trouble, and to no others; while
the trouble is still to be told, both are told in one message.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from control.outbox import nudge
from healthmon.notify.audience import Audience, Hearer
from healthmon.notify.models import (
    CERTIFICATE,
    DEGRADED,
    DOWN,
    FLAPPING,
    RECOVERED,
    SLO,
    TROUBLES,
    UNKNOWN,
    Notice,
)
from healthmon.targets.models import Target
from healthmon.truth.models import Incident
from healthmon.truth.slo import BurnEvent
from healthmon.truth.stored import FlipStored

PARENT_CHECK = timedelta(seconds=30)
_CHUNK = 500


def on_flips(flips: Sequence[FlipStored]) -> None:
    """The flip hook."""
    now = timezone.now()
    telling = [(flip, event) for flip in flips if (event := event_of(flip))]
    if not telling:
        return
    ids = {flip.target.pk for flip, _ in telling}
    audience = Audience(target_ids=ids, now=now)
    troubles = _open_troubles(ids)
    fresh: list[Notice] = []
    over: list[Notice] = []
    for flip, event in telling:
        known = troubles[flip.target.pk]
        if event == RECOVERED:
            fresh += _recoveries(flip, known, audience, now)
            over += known
            known.clear()
            continue
        made = [
            _notice(flip, event, hearer, now) for hearer in _hearers(flip, event, audience, known)
        ]
        fresh += made
        known += made  # of the same transaction may be its end
    for notice in over:
        notice.is_open = False
    _write(fresh)
    _close(over)


def event_of(flip: FlipStored) -> str:
    """What of a flip is told; "" for nothing."""
    to = flip.change.to_status
    if flip.flapping_began:
        return FLAPPING
    if flip.change.flapping or not (flip.is_change or flip.flapping_ended):
        return ""
    if to == "down":
        # Down again after unknown is the same incident, and told already.
        return DOWN if flip.opened or flip.flapping_ended else ""
    if to == "unknown":
        return UNKNOWN
    if to == "degraded":
        return RECOVERED if flip.closed else DEGRADED
    return RECOVERED  # up; or nobody watches it any more


def on_burns(events: Sequence[BurnEvent]) -> None:
    """The burn hook: an alert that fires is told, its clearing is not."""
    now = timezone.now()
    fired = [event for event in events if event.fired]
    audience = Audience(target_ids=[event.target.pk for event in fired], now=now)
    _write(
        notice_of(
            event.target,
            SLO,
            hearer,
            subject=f"b{event.alert.pk}",
            at=event.alert.fired_at,
            now=now,
            reason=f"its error budget burns {event.alert.burn:.3g} times as fast as allowed",
        )
        for event in fired
        for hearer in audience.hearers(event.target, SLO, event.target.severity).values()
    )


def on_certificates(expiring: Sequence[tuple[Target, datetime, int]], now: datetime) -> None:
    """Targets whose certificate expires, when, and the mark in days that it has passed."""
    audience = Audience(target_ids=[target.pk for target, _, _ in expiring], now=now)
    with transaction.atomic():
        _write(
            notice_of(
                target,
                CERTIFICATE,
                hearer,
                subject=f"c{int(expires.timestamp())}-{days}",
                at=now,
                now=now,
                reason=_expiry_words(expires, now),
            )
            for target, expires, days in expiring
            for hearer in audience.hearers(target, CERTIFICATE, target.severity).values()
        )


def notice_of(
    target: Target,
    event: str,
    hearer: Hearer,
    *,
    subject: str,
    at: datetime,
    now: datetime,
    reason: str = "",
    incident: Incident | None = None,
    **details: Any,
) -> Notice:
    """A notice that waits; `subject` is what of the target it is about."""
    return Notice(
        key=f"{hearer.channel_id}:{target.pk}:{subject}:{event}",
        rule_id=hearer.rule_id,
        channel_id=hearer.channel_id,
        target=target,
        incident=incident,
        event=event,
        at=at,
        due_at=hearer.due_at,
        held=Notice.QUIET if hearer.quiet else "",
        is_open=event in TROUBLES,
        details={"severity": target.severity, "reason": _text(reason), **details},
        created_at=now,
    )


# --- parts -------------------------------------------------------------------------------------


def _hearers(
    flip: FlipStored, event: str, audience: Audience, known: list[Notice]
) -> Iterable[Hearer]:
    severity = flip.incident.severity if flip.incident else flip.target.severity
    return audience.hearers(flip.target, event, severity).values()


def _notice(flip: FlipStored, event: str, hearer: Hearer, now: datetime) -> Notice:
    change, incident = flip.change, flip.incident
    about_incident = event == DOWN and incident is not None
    made = notice_of(
        flip.target,
        event,
        hearer,
        subject=f"i{incident.pk}" if about_incident and incident else f"s{change.seq}",
        at=_at(change.at_us),
        now=now,
        reason=change.reason,
        incident=incident,
        status=change.to_status,
        previous=change.from_status,
    )
    if event in TROUBLES and incident is not None and incident.suppressed_by_id:
        made.held, made.due_at = Notice.PARENT, max(made.due_at, now + PARENT_CHECK)
    return made


def _recoveries(
    flip: FlipStored, troubles: list[Notice], audience: Audience, now: datetime
) -> list[Notice]:
    """One for each channel that was told of a trouble, or will be."""
    by_channel: dict[int, list[Notice]] = defaultdict(list)
    for trouble in troubles:
        if trouble.held in (Notice.PARENT, Notice.GRACE) and trouble.state == Notice.WAITING:
            trouble.state = Notice.DROPPED
            trouble.why = "It was over before its parent was."
        elif trouble.state != Notice.DROPPED:
            by_channel[trouble.channel_id].append(trouble)
    anybody = audience.hearers(flip.target, RECOVERED, "critical")
    made = []
    for channel_id, heard in by_channel.items():
        own = (audience.by_rule(one.rule_id, channel_id, RECOVERED) for one in heard)
        hearer = next((one for one in own if one is not None), anybody.get(channel_id))
        if hearer is None:
            continue
        began = min(one.at for one in heard)
        notice = _notice(flip, RECOVERED, hearer, now)
        notice.details["since"] = began.isoformat()
        notice.details["about"] = [one.key for one in heard]
        _join(notice, heard)
        made.append(notice)
    return made


def _join(recovery: Notice, troubles: list[Notice]) -> None:
    """Have it told together with a trouble that is still to be told, whoever's rule that is."""
    untold = [one for one in troubles if one.state == Notice.WAITING]
    if untold:
        last = max(untold, key=lambda one: one.due_at)
        recovery.rule_id, recovery.due_at, recovery.held = last.rule_id, last.due_at, last.held


def _open_troubles(target_ids: set[int]) -> defaultdict[int, list[Notice]]:
    found: defaultdict[int, list[Notice]] = defaultdict(list)
    ids = sorted(target_ids)
    for start in range(0, len(ids), _CHUNK):
        rows = Notice.objects.filter(is_open=True, target__in=ids[start : start + _CHUNK])
        for notice in rows.order_by("pk"):
            found[notice.target_id].append(notice)
    return found


def _write(notices: Iterable[Notice]) -> None:
    """Each once: an event that is found again has the key that it had."""
    made = Notice.objects.bulk_create(list(notices), batch_size=_CHUNK, ignore_conflicts=True)
    if made:
        transaction.on_commit(nudge.nudge)


def _close(troubles: list[Notice]) -> None:
    """By key, as those of this transaction have not been read back."""
    dropped = [one.key for one in troubles if one.state == Notice.DROPPED]
    keys = [one.key for one in troubles]
    for start in range(0, len(keys), _CHUNK):
        Notice.objects.filter(key__in=keys[start : start + _CHUNK]).update(is_open=False)
    for start in range(0, len(dropped), _CHUNK):
        # A composer may have told it meanwhile: then it has been told.
        Notice.objects.filter(key__in=dropped[start : start + _CHUNK], state=Notice.WAITING).update(
            state=Notice.DROPPED, why="It was over before its parent was."
        )


def _at(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC) + timedelta(
        microseconds=at_us % 1_000_000
    )


def _text(reason: str) -> str:
    return reason.encode("utf-8", "replace").decode().replace("\0", "\\u0000")[:500]


def _expiry_words(expires: datetime, now: datetime) -> str:
    if expires <= now:
        return f"it has expired on {expires:%Y-%m-%d}"
    days = (expires - now).days
    return f"in {days} day{'s' if days != 1 else ''}, on {expires:%Y-%m-%d}"
