"""Channels, rules and flips for the tests of who is told of what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import time_machine
from django.db import transaction

from control.outbox.models import OutboxMessage
from healthmon.notify.composing import compose_due
from healthmon.notify.models import Channel, Notice, NotificationRule
from healthmon.notify.noticing import on_flips
from healthmon.notify.options import set_options
from healthmon.targets.models import Target
from healthmon.truth.changes import Change
from healthmon.truth.models import Incident, TargetState
from healthmon.truth.stored import FlipStored

T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make_channel(name: str = "ops", url: str = "http://127.0.0.1:9/", **options: Any) -> Channel:
    channel = Channel(name=name, kind="webhook", rate_per_minute=6000)
    set_options(channel, {"url": url, **options})
    channel.save()
    return channel


def make_rule(channel: Channel, name: str = "all", **fields: Any) -> NotificationRule:
    rule = NotificationRule.objects.create(name=name, **fields)
    rule.channels.add(channel)
    return rule


class Play:
    """Targets whose flips are stored as the `flips` sink does, at times that a test says."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._seq: dict[int, int] = {}

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        self._clock.shift(seconds)

    def target(self, name: str = "api", **fields: Any) -> Target:
        target = Target.objects.create(name=name, address="http://x/", **fields)
        TargetState.objects.create(target=target, status="up")
        return target

    def flip(
        self,
        target: Target,
        to: str,
        *,
        flapping: bool = False,
        suppressed_by: Target | None = None,
        reason: str = "connection refused",
    ) -> FlipStored:
        return self.flips((target, to), flapping=flapping, by=suppressed_by, reason=reason)[0]

    def flips(
        self,
        *moves: tuple[Target, str],
        flapping: bool = False,
        by: Target | None = None,
        reason: str = "connection refused",
    ) -> list[FlipStored]:
        """Several in one transaction."""
        with transaction.atomic():
            stored = [self._store(target, to, flapping, by, reason) for target, to in moves]
            on_flips(stored)
        return stored

    def _store(
        self, target: Target, to: str, flapping: bool, by: Target | None, reason: str
    ) -> FlipStored:
        state = TargetState.objects.get(target=target)
        was, was_flapping = state.status, state.flapping
        seq = self._seq[target.pk] = self._seq.get(target.pk, 0) + 1
        state.status, state.flapping, state.seq = to, flapping, seq
        state.save()
        incident = Incident.objects.filter(target=target, closed_at=None).first()
        opened = closed = False
        if to == "down" and incident is None:
            opened = True
            incident = Incident.objects.create(
                target=target, opened_at=self.now, opened_seq=seq, cause=ascii(reason),
                severity=target.severity, suppressed_by=by,
            )  # fmt: skip
        elif incident is not None and to in ("up", "degraded", "paused", "maintenance"):
            closed = True
            incident.closed_at = self.now
            incident.save()
        return FlipStored(
            change=Change(
                target_id=target.pk, target=target.name, seq=seq, from_status=was, to_status=to,
                at_us=int(self.now.timestamp() * 1e6), reason=reason, flapping=flapping,
            ),
            target=target, incident=incident, opened=opened, closed=closed,
            was_flapping=was_flapping,
        )  # fmt: skip

    def composed(self, *, after: float = 0) -> list[dict[str, Any]]:
        """What is told now, as payloads; the messages are taken out as if they had been sent."""
        self.wait(after)
        compose_due(self.now)
        fresh = OutboxMessage.objects.filter(state="waiting").order_by("pk")
        payloads = [message.payload["told"] for message in fresh]
        fresh.update(state="sent", finished_at=self.now)
        return payloads

    def titles(self, *, after: float = 0) -> list[str]:
        return [told["title"] for told in self.composed(after=after)]


@contextlib.contextmanager
def play(at: datetime = T0) -> Iterator[Play]:
    with time_machine.travel(at, tick=False) as clock:
        yield Play(clock)


def waiting() -> list[tuple[str, str]]:
    rows = Notice.objects.filter(state=Notice.WAITING).order_by("pk")
    return list(rows.values_list("event", "held"))


SECONDS = timedelta(seconds=1)
