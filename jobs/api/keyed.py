"""`Idempotency-Key`: a submission that is sent again is answered again, and is one job.

The key's row is written in the transaction of the job itself, by the Store.  With it goes a digest
of the body; the key belongs to the job's tenant.  Runs on request threads.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec
from django.http import HttpResponse

from control.idempotency.header import REPLAYED
from control.idempotency.models import DONE, IdempotencyKey
from jobs.store.protocol import Repeated

PATH = "/jobs"
CORRELATION = "X-Correlation-ID"


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def used_before(key: str, tenant: str) -> Repeated | None:
    """What was answered when it was first used, for a submission that cannot be taken now.

    A deadline may have passed since, or the type been disabled: that does not undo the job.
    """
    row = IdempotencyKey.objects.filter(
        tenant=tenant, path=PATH, key=key, state=DONE, expires_at__gt=datetime.now(UTC)
    ).first()
    if row is None:
        return None
    return Repeated(digest=row.digest, status=row.status, response=row.response)


class _Told(msgspec.Struct):
    """What of the first answer is said in its headers too."""

    url: str = PATH
    correlation_id: str = ""


_decode = msgspec.json.Decoder(_Told).decode


def replay(repeated: Repeated) -> HttpResponse:
    told = _decode(repeated.response)
    headers = {REPLAYED: "true", "Location": told.url}
    if told.correlation_id:
        headers[CORRELATION] = told.correlation_id
    return HttpResponse(
        repeated.response.encode(),
        status=repeated.status,
        content_type="application/json",
        headers=headers,
    )
