"""Records as NDJSON: the payload as it was sent, by default inside an envelope with its id.

    {"id":"8421…","received_at":"2026-01-01T00:00:00Z","tenant":"default","type":"log","record":{…}}

Delivery to files is at least once; the id tells a repeated line.  It is a string because JSON
readers that hold numbers as doubles would round it.  Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from pipeline.record import Part, Record

Lines = Callable[[Part, Sequence[Record]], bytes]


def payload_lines(part: Part, records: Sequence[Record]) -> bytes:
    """The payloads alone."""
    data = b"\n".join([record.payload for record in records]) + b"\n"
    if data.count(b"\n") != len(records):
        data = b"\n".join([_one_line(record.payload) for record in records]) + b"\n"
    return data


def envelope_lines(part: Part, records: Sequence[Record]) -> bytes:
    """Each payload as `record`, beside its id and what the request had in common."""
    about = {
        "received_at": _time(part.received_us),
        "tenant": part.tenant,
        "type": part.type,
    }
    middle = b'",' + msgspec.json.encode(about)[1:-1] + b',"record":'
    line = b'{"id":"%d%b%b}\n'
    data = b"".join([line % (r.id, middle, r.payload) for r in records])
    if data.count(b"\n") != len(records):
        data = b"".join([line % (r.id, middle, _one_line(r.payload)) for r in records])
    return data


def _one_line(payload: bytes) -> bytes:
    # A raw line feed in JSON text is white space between its tokens.
    return payload.replace(b"\n", b" ")


def _time(us: int) -> str:
    at = datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)
    return at.isoformat().replace("+00:00", "Z")
