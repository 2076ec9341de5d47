"""What becomes of claims in time: they expire, and those that nobody can settle are given back.

Run by the heart.  A claim stays open while its owner lives, and while the owner's log is there to
be adopted: the adopter settles it.  Only a claim whose owner is silent and whose log is nowhere to
be seen has nobody left to settle it.  It is then forgotten, never called done: an answer that was
never given may be given again, but records that may be lost must not be acknowledged.

- The owner ran on this host and its log's directory is gone: `GONE_AFTER`.
- The owner ran elsewhere, so that its log may be on a disk that is not in sight: `FOREIGN_AFTER`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from control.idempotency.claims import release_all
from control.idempotency.models import PENDING, IdempotencyKey
from control.processes.models import Process

logger = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 60.0
SWEEP_INTERVAL_S = 15.0
# A claim of this process that no request holds: its insert was answered to nobody.
STRAY_AFTER = timedelta(seconds=30)
GONE_AFTER = timedelta(minutes=2)
FOREIGN_AFTER = timedelta(hours=1)
_CHUNK = 1000
_MOST_CHUNKS = 50


def forget_expired(now: datetime) -> int:
    """Delete what is past its time, a bounded number a run; returns how many."""
    count = 0
    expired = IdempotencyKey.objects.filter(expires_at__lte=now).order_by("expires_at")
    for _ in range(_MOST_CHUNKS):
        ids = list(expired.values_list("pk", flat=True)[:_CHUNK])
        # Conditional still: a claim of another process may have replaced one of them.
        count += IdempotencyKey.objects.filter(pk__in=ids, expires_at__lte=now).delete()[0]
        if len(ids) < _CHUNK:
            break
    return count


def sweep(
    now: datetime,
    *,
    own_log_id: str,
    active: Callable[[], Iterable[UUID]],
    wal_directory: Path,
    host: str,
) -> int:
    """Give back the claims that nobody will settle; returns how many."""
    open_claims = IdempotencyKey.objects.filter(state=PENDING, claimed_at__lte=now - STRAY_AFTER)
    rows = list(open_claims.values_list("pk", "log_id", "claimed_at", "kept")[:_CHUNK])
    if not rows:
        return 0
    held = set(active())
    owners = _owners({log_id for _, log_id, _, _ in rows} - {own_log_id})
    given_back = []
    for pk, log_id, claimed_at, kept in rows:
        if log_id == own_log_id:
            ownerless = pk not in held
        else:
            ownerless = _is_lost(
                log_id,
                owner=owners.get(log_id),
                silent_since=claimed_at,
                now=now,
                wal_directory=wal_directory,
                host=host,
            )
        if ownerless:
            given_back.append((pk, bool(kept)))
    release_all(given_back)
    if given_back:
        logger.warning(
            "idempotency keys were given back: nobody was left to settle their claims",
            extra={"count": len(given_back)},
        )
    return len(given_back)


def _owners(log_ids: set[str]) -> dict[str, Process]:
    found = Process.objects.filter(log_id__in=log_ids).only(
        "log_id", "host", "last_seen_at", "stopped_at"
    )
    return {process.log_id: process for process in found}


def _is_lost(
    log_id: str,
    *,
    owner: Process | None,
    silent_since: datetime,
    now: datetime,
    wal_directory: Path,
    host: str,
) -> bool:
    if log_id and (wal_directory / log_id).is_dir():
        return False
    if owner is None:
        # It died before its first heartbeat, or its row has been forgotten.
        return now - silent_since >= FOREIGN_AFTER
    silence = now - max(owner.last_seen_at, silent_since)
    return silence >= (GONE_AFTER if owner.host == host else FOREIGN_AFTER)
