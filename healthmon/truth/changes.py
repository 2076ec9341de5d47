"""A change of a target's status on its way to the `flips` sink: the payload of a `flip` record."""

from __future__ import annotations

import msgspec

from pipeline.record import ERROR, INFO, WARN, Record

FLIP = "flip"  # the record type
_SEVERITY = {"down": ERROR, "degraded": WARN, "unknown": WARN}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One flip.  `seq` is the target's count of flips with this one; `at_us` its true time.

    `slot` and `epoch` are those of the lease under which it was decided.
    """

    target_id: int
    target: str
    seq: int
    from_status: str
    to_status: str
    at_us: int
    reason: str = ""
    flapping: bool = False
    slot: int = 0
    epoch: int = 0
    checker: str = ""
    cert_expires_us: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Change).decode


def record_of(change: Change) -> Record:
    """The record of a change; what no text may hold (half a surrogate, a NUL) is spelled out."""
    if not _is_plain(change.reason) or not _is_plain(change.target):
        change = msgspec.structs.replace(
            change, reason=_plain(change.reason), target=_plain(change.target)
        )
    return Record(
        timestamp_us=change.at_us,
        severity=_SEVERITY.get(change.to_status, INFO),
        service=change.target,
        message=f"{change.from_status} -> {change.to_status}: {change.reason}"[:1000],
        trace_id="",
        span_id="",
        payload=_encode(change),
    )


def change_of(payload: bytes) -> Change:
    """The inverse.  Raises msgspec.DecodeError."""
    return _decode(payload)


def _is_plain(text: str) -> bool:
    return (text.isascii() and "\0" not in text) or _plain(text) == text


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
