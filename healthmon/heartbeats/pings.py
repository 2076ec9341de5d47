"""A ping on its way to the `heartbeats` sink: the payload of a `ping` record, and what it may be.

Pure functions; a ping is made on a request's thread and read on a sink's worker thread.
"""

from __future__ import annotations

import msgspec

from pipeline.record import ERROR, INFO, Record

PING = "ping"  # the record type
START, SUCCESS, FAIL, DEGRADED = "start", "success", "fail", "degraded"
MAX_BODY_BYTES = 10_000
MAX_REMOTE_CHARS = 64


class SentPing(msgspec.Struct, frozen=True, kw_only=True):
    """What one request said.  The secret of its address is not in it."""

    target_id: int
    kind: str
    exit_code: int | None = None
    remote: str = ""
    body: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SentPing).decode


def kind_of_exit(code: int) -> str:
    return SUCCESS if code == 0 else FAIL


def text_of(body: bytes) -> str:
    """What was sent as text that every database takes; what is no UTF-8 is marked, NUL left out."""
    return body[:MAX_BODY_BYTES].decode("utf-8", "replace").replace("\0", "")


def record_of(ping: SentPing, *, target: str, at_us: int) -> Record:
    return Record(
        timestamp_us=at_us,
        severity=ERROR if ping.kind == FAIL else INFO,
        service=target,
        message=ping.kind,
        trace_id="",
        span_id="",
        payload=_encode(ping),
    )


def ping_of(payload: bytes) -> SentPing:
    """The inverse.  Raises msgspec.DecodeError."""
    return _decode(payload)
