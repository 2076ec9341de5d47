"""Sending: from an outbox message to its channel, by the channel's kind.

Called on the outbox's threads, one channel by one of them; keeps nothing.  What the other end says
is cleaned of the channel's secrets before anybody sees it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from django.utils import timezone

from control.outbound.connecting import Outbound
from control.outbound.policy import PolicyError
from control.outbox.senders import DoubtfulError, Outgoing, Terms
from healthmon.notify.kind import DEADLINE_S, Delivery, Event, Notification
from healthmon.notify.models import Channel
from healthmon.notify.options import decoded, secret_values
from healthmon.notify.registry import KindError
from healthmon.probes.net.policy import policy_from_settings
from healthmon.truth.incidents import notified
from healthmon.truth.models import Incident
from pipeline.errors import PermanentError, RetryableError, SinkError
from sinks.options import OptionsError
from sinks.secrets import SecretError, redact

MISCONFIGURED_RETRY_S = 60.0


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a message's payload holds."""

    told: Notification
    incidents: list[int] = []


class ChannelSender:
    """The outbox's sender of every channel here; a channel's name is its row's key."""

    deadline_s = DEADLINE_S

    def terms(self, channel: str) -> Terms | None:
        row = _row(channel)
        if row is None:
            return None
        return Terms(enabled=row.enabled, rate_per_minute=float(row.rate_per_minute))

    def send(self, message: Outgoing) -> str:
        row = _row(message.channel)
        if row is None:
            raise PermanentError("There is no such channel any more.")
        told = _payload(message.payload).told
        return send_to(row, told, key=message.dedupe_key, now_s=int(timezone.now().timestamp()))

    def settled(self, message: Outgoing, sent: bool) -> None:
        """Note in the incidents' timelines who was told, or was not."""
        payload = _payload(message.payload)
        if not payload.incidents:
            return
        row = _row(message.channel)
        name = row.name if row is not None else "a channel that is gone"
        what = ", ".join(sorted(payload.told.counts))
        words = f"{name} was told: {what}" if sent else f"{name} could not be told: {what}"
        # Some may be gone by now, with their targets.
        ids = Incident.objects.filter(pk__in=payload.incidents[:500]).values_list("pk", flat=True)
        notified(list(ids), words)


def send_to(row: Channel, told: Notification, *, key: str, now_s: int) -> str:
    """Send it now, and answer what the other end said.  Raises RetryableError, PermanentError."""
    try:
        kind, options = decoded(row)
        policy = policy_from_settings()
    except (KindError, OptionsError, SecretError, PolicyError) as error:
        # To be repaired by the operator: what waits is sent then.
        raise RetryableError(
            f"the channel cannot be used: {error}", retry_after_s=MISCONFIGURED_RETRY_S
        ) from None
    secrets = secret_values(row)
    delivery = Delivery(
        key=key,
        notification=told,
        channel=row.name,
        options=options,
        outbound=Outbound(policy=policy, deadline_s=DEADLINE_S),
        now_s=now_s,
    )
    try:
        return redact(kind.send(delivery), secrets)
    except RetryableError as error:
        again = DoubtfulError if isinstance(error, DoubtfulError) else RetryableError
        raise again(redact(str(error), secrets), retry_after_s=error.retry_after_s) from None
    except SinkError as error:
        raise PermanentError(redact(str(error), secrets)) from None


def trial(row: Channel) -> Notification:
    """What the test button sends; its link is to the channel."""
    event = Event(
        key="test",
        event="down",
        target="example target",
        address="https://example.org/health",
        target_id=0,
        status="down",
        previous="up",
        severity="info",
        reason="a test by an operator",
        at=timezone.now().strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        path=f"/admin/healthmon/channel/{row.pk}/change/",
    )
    return Notification(
        title="Test of a notification channel",
        events=[event],
        counts={"down": 1},
        path=event.path,
        test=True,
    )


def _payload(payload: dict[str, Any]) -> Payload:
    try:
        return msgspec.convert(payload, Payload)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the message cannot be read: {error}") from None


def _row(channel: str) -> Channel | None:
    return Channel.objects.filter(pk=int(channel)).first() if channel.isdigit() else None
