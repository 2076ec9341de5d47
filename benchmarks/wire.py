"""Owns: the same records in each wire format, and ways of decoding them, to be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from benchmarks.rows import bodies
from ingest.wire.decode import Decoded, Limits, decode
from ingest.wire.formats import Format
from ingest.wire.kinds import LOGS
from ingest.wire.protoschema import schema
from ingest.wire.timestamps import EPOCH, MICROSECOND

_LIMITS = Limits(max_records=100_000, max_record_bytes=1024 * 1024, max_depth=64)
_ARRIVAL_US = 1_790_000_000_000_000


def ndjson(records: int) -> bytes:
    (body,) = bodies(records, count=1)
    return body


def msgpack(body: bytes) -> bytes:
    return msgspec.msgpack.encode([json.loads(line) for line in body.split(b"\n")])


def protobuf(body: bytes) -> bytes:
    batch = schema().log_batch()
    for line in body.split(b"\n"):
        fields = json.loads(line)
        moment = datetime.fromisoformat(fields.pop("timestamp"))
        batch.records.add(timestamp_us=(moment - EPOCH) // MICROSECOND, **fields)
    return bytes(batch.SerializeToString())


def taken(body: bytes, format: Format) -> Decoded:
    """What the front door makes of a body."""
    return decode(
        body,
        format=format,
        kind=LOGS,
        tenant="default",
        any_tenant=False,
        arrival_us=_ARRIVAL_US,
        limits=_LIMITS,
    )


def plainly_msgpack(body: bytes) -> Decoded:
    """The obvious way: decoded whole, written out by the standard library, and read as JSON."""
    return taken(json.dumps(msgspec.msgpack.decode(body)).encode(), Format.JSON)


def plainly_protobuf(body: bytes) -> Decoded:
    """The obvious way: the runtime's own conversion to JSON, which is written in Python."""
    from google.protobuf.json_format import MessageToDict

    batch = schema().log_batch.FromString(body)
    records: list[dict[str, Any]] = []
    for record in batch.records:
        fields = MessageToDict(record, preserving_proto_field_name=True)
        fields["timestamp"] = int(fields.pop("timestamp_us"))
        records.append(fields)
    return taken(json.dumps(records).encode(), Format.JSON)


def formats() -> dict[str, tuple[Callable[[bytes], bytes], Format]]:
    """By name: how a body of NDJSON is written in it, and what it is called."""
    return {
        "JSON": (lambda body: body, Format.LINES),
        "MessagePack": (msgpack, Format.MSGPACK),
        "protobuf": (protobuf, Format.PROTOBUF),
    }
