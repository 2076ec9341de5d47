"""What is posted when a job has ended, and where it waits until it is.

A message holds no address and no secret: the sender reads them from the rows when it sends.  Pure
but for the time of the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from jobs.api.moments import stamp
from jobs.ids import submitted_at
from jobs.store.protocol import Claimed, Ended
from jobs.types.spec import TypeSpec

SENDER = "jobs"
# What is larger is fetched from the job itself.
MAX_RESULT_BYTES = 64 * 1024
# Jobs' own addresses share so many lanes, so that many that hang hold up nobody else's messages.
OWN_LANES = 4
TYPE, OWN = "type:", "own:"


def compose(
    job: Claimed, type: TypeSpec, ended: Ended, *, now: datetime | None = None
) -> dict[str, Any] | None:
    """The arguments of the outbox's `enqueue` but for `now`; None where nobody is to be told.

    It ended `now`, by the runner's clock: the row's own time is the database's, a little later.
    """
    if not (job.webhook_url or type.webhook_url):
        return None
    finished_at = now or datetime.now(UTC)
    began_at = finished_at - timedelta(seconds=ended.ran_s) if ended.ran_s > 0 else None
    return message(
        id=job.id,
        claim=job.claim,
        type_id=job.type_id,
        type_name=type.name,
        own_url=job.webhook_url,
        state=ended.state,
        job={
            "reason": ended.reason,
            "tenant": job.tenant,
            "correlation_id": job.correlation_id,
            "service": job.service,
            "attempts": job.attempts + (1 if ended.spent else 0),
            "error": ended.error,
            **_bounded(ended.result),
        },
        started_at=began_at,
        finished_at=finished_at,
    )


def message(
    *,
    id: UUID,
    claim: int,
    type_id: int,
    type_name: str,
    own_url: str,
    state: str,
    job: Mapping[str, Any],
    started_at: datetime | None,
    finished_at: datetime | None,
) -> dict[str, Any]:
    """One message for one end of a job; said again it has the same key."""
    document = {
        "id": str(id),
        "type": type_name,
        "status": state,
        "submitted_at": stamp(submitted_at(id)),
        "started_at": stamp(started_at),
        "finished_at": stamp(finished_at),
        "url": f"/jobs/{id}",
        **job,
    }
    return {
        "dedupe_key": dedupe_key(id, claim, state),
        "sender": SENDER,
        "channel": own_channel(own_url) if own_url else f"{TYPE}{type_id}",
        "channel_name": f"jobs: {_host(own_url) if own_url else type_name}",
        "subject": f"{type_name} {state}: {id}",
        "payload": {
            "event": f"job.{state}",
            "job": document,
            "type_id": type_id,
            "own": bool(own_url),
        },
    }


def dedupe_key(id: UUID, claim: int, state: str) -> str:
    return f"job:{id}:{claim}:{state}"


def own_channel(url: str) -> str:
    return f"{OWN}{zlib.crc32(_host(url).encode()) % OWN_LANES}"


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "")[:150]


def _bounded(result: Any) -> dict[str, Any]:
    if result is None or len(msgspec.json.encode(result)) <= MAX_RESULT_BYTES:
        return {"result": result, "result_omitted": False}
    return {"result": None, "result_omitted": True}
