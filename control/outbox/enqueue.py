"""Putting a message into the outbox: inside the caller's transaction, once for each key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from control.outbox import nudge
from control.outbox.models import OutboxMessage

MAX_AGE_S = 24 * 3600.0


def enqueue(
    *,
    dedupe_key: str,
    sender: str,
    channel: str,
    payload: dict[str, Any],
    now: datetime,
    channel_name: str = "",
    subject: str = "",
    not_before: datetime | None = None,
    max_age_s: float = MAX_AGE_S,
) -> bool:
    """Write the message; False when there is one with this key already, which stays as it is.

    It is kept or lost together with the transaction that this is called in; within a second or
    two after that it is sent, by whichever process comes first.
    """
    start = max(now, not_before) if not_before is not None else now
    _, made = OutboxMessage.objects.get_or_create(
        dedupe_key=dedupe_key,
        defaults={
            "sender": sender,
            "channel": channel,
            "channel_name": channel_name[:200],
            "subject": subject[:300],
            "payload": payload,
            "created_at": now,
            "next_at": start,
            "expires_at": start + timedelta(seconds=max_age_s),
        },
    )
    transaction.on_commit(nudge.nudge)
    return made
