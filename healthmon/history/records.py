"""A probe's result on its way to the `results` sink: a `probe` record.

The envelope carries what every result has, the payload the rest, and only where it differs from
the default: most results of a healthy target are small.
"""

from __future__ import annotations

import msgspec

from healthmon.probes.kind import ERROR_CHARS, Result
from pipeline.record import INFO, WARN, Record

PROBE = "probe"  # the record type


class StoredResult(msgspec.Struct, array_like=True, gc=False):
    """A result with its target; in the order of the payload's array."""

    target_id: int
    outcome: str
    total_ms: float
    dns_ms: float
    connect_ms: float
    tls_ms: float
    first_byte_ms: float
    code: int
    address: str
    error: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredResult).decode


def record_of(target_id: int, target: str, at_us: int, result: Result) -> Record:
    """`at_us` is when the probe began."""
    error = _storable(result.error) if result.error else ""
    stored = StoredResult(
        target_id,
        result.outcome,
        round(result.total_ms, 3),
        round(result.dns_ms, 3),
        round(result.connect_ms, 3),
        round(result.tls_ms, 3),
        round(result.first_byte_ms, 3),
        result.code,
        result.address,
        error,
    )
    severity = WARN if result.outcome == "failed" else INFO
    return Record(at_us, severity, target, error, "", "", _encode(stored))


def _storable(error: str) -> str:
    """What a far side said may hold anything; no database takes a NUL or half a character."""
    error = error[:ERROR_CHARS]
    if error.isascii() and "\0" not in error:
        return error
    return error.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def stored_of(payload: bytes) -> StoredResult:
    """The inverse.  Raises msgspec.DecodeError."""
    return _decode(payload)
