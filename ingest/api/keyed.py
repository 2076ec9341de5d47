"""`Idempotency-Key`: a request that is sent again is answered again, and kept once.

The key belongs to the caller's tenant and the address; with it goes a digest of the body, inflated,
and of how it was read.  `ack` and Content-Encoding are no part of it: whoever asks for less, or
packs differently, the second time means the same records, and the answer names what is true.

A claim is taken in the control database before anything is offered, with the answer that is then
foreseen; the frames carry it, and when they are in the log it is done.  Of a process that dies in
between, the log tells which claims were kept.  Runs on the request's thread.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpResponse

from control.idempotency import header, service
from control.idempotency.claims import Claim, Mismatch, Replay, Wanted
from control.idempotency.desk import Desk
from control.idempotency.jobs import Busy, Unavailable
from ingest import metrics
from ingest.wire.errors import RequestError
from ingest.wire.formats import Format
from pipeline.engine import Engine
from pipeline.errors import Refused, Saturated


class KeyPending(Refused):
    """The first request with the key is not answered yet."""

    reason = "idempotency_pending"


class KeysAway(Refused):
    """Nobody can tell now whether the key was used."""

    reason = "idempotency_unavailable"


def key_of(meta: Mapping[str, Any]) -> str | None:
    """The request's key, None without one; raises 400 for what is none."""
    try:
        return header.key_of(meta)
    except header.BadKey as error:
        raise RequestError(400, "bad_idempotency_key", str(error)) from None


def digest_of(body: bytes, format: Format) -> str:
    hashed = hashlib.sha256(format.value.encode() + b"\0")
    hashed.update(body)
    return hashed.hexdigest()


class Keyed:
    """One request's claim, from its taking to its end."""

    def __init__(self, desk: Desk, claim: Claim, foreseen: bytes) -> None:
        self._desk, self._claim, self._foreseen = desk, claim, foreseen

    def missing(self, tenants: Sequence[str]) -> list[str]:
        """The tenants whose records no log holds yet."""
        return [tenant for tenant in tenants if tenant in self._claim.missing]

    def frame_key(self, tenant: str) -> str:
        return self._claim.frame_key(tenant)

    def done(self, engine: Engine, tenants: Sequence[str], answer: bytes | None) -> None:
        """The frames of `tenants` are in the log, and this is answered, also the next time.

        None: what was foreseen, as this request got no answer.
        """

        def recorded() -> None:
            for tenant in tenants:
                engine.key_recorded(self.frame_key(tenant))

        metrics.count_keyed("kept")
        self._desk.finish(
            self._claim,
            response=None if answer is None or answer == self._foreseen else answer.decode(),
            on_recorded=recorded,
        )

    def give_back(self) -> None:
        """Nothing was taken: the key may be used again."""
        metrics.count_keyed("refused")
        self._desk.release(self._claim)


def claim(
    key: str,
    *,
    tenant: str,
    path: str,
    digest: str,
    log_id: str,
    parts: Sequence[str],
    foreseen: bytes,
) -> Keyed | HttpResponse:
    """The claim, or the answer that the request was given before.

    Raises 422 for a key of another body, KeyPending, KeysAway or Saturated.
    """
    try:
        desk = service.current().desk
        outcome = desk.claim(
            Wanted(
                id=uuid.uuid4(),
                tenant=tenant,
                path=path,
                key=key,
                digest=digest,
                log_id=log_id,
                parts=tuple(sorted(parts)),
                status=202,
                response=foreseen.decode(),
            )
        )
    except Unavailable:
        metrics.count_keyed("unavailable")
        raise KeysAway(
            "the control database does not answer, so nobody can tell whether this "
            "Idempotency-Key was used: send the request again",
            retry_after_s=2.0,
        ) from None
    except Busy:
        metrics.count_keyed("busy")
        raise Saturated("too many requests wait for their Idempotency-Key's claim") from None
    if isinstance(outcome, Claim):
        return Keyed(desk, outcome, foreseen)
    if isinstance(outcome, Replay):
        metrics.count_keyed("replayed")
        return HttpResponse(
            outcome.response.encode(),
            status=outcome.status,
            content_type="application/json",
            headers={header.REPLAYED: "true"},
        )
    if isinstance(outcome, Mismatch):
        metrics.count_keyed("mismatch")
        raise RequestError(
            422,
            "idempotency_mismatch",
            f"the Idempotency-Key was used for a request to {path} with another body: "
            "a new request needs a new key",
        )
    metrics.count_keyed("pending")
    raise KeyPending(
        "the first request with this Idempotency-Key is not answered yet: send it again later",
        retry_after_s=1.0,
    )
