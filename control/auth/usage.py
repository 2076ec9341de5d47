"""When each key was last used: noted in memory by requests, written in bulk by the heart."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db.models import Case, DateTimeField, Value, When

from control.auth.keys import KeyRing, keyring
from control.auth.models import ApiKey

INTERVAL_S = 60.0
_CHUNK = 200


def write(ring: KeyRing | None = None) -> None:
    """Write what was noted since the last time. Raises, and keeps the notes, without a database."""
    ring = ring or keyring()
    used = ring.take_used()
    try:
        while used:
            chunk = dict(list(used.items())[:_CHUNK])
            ApiKey.objects.filter(pk__in=chunk).update(
                last_used_at=Case(
                    *(
                        When(pk=pk, then=Value(datetime.fromtimestamp(at, UTC)))
                        for pk, at in chunk.items()
                    ),
                    output_field=DateTimeField(),
                )
            )
            for pk in chunk:
                del used[pk]
    finally:
        if used:
            ring.put_back_used(used)
