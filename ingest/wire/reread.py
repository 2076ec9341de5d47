"""An edited payload read as the front door reads one: the same screen, fields and limits."""

from __future__ import annotations

from django.conf import settings

from control.ports.payloads import PayloadReader, UnreadablePayload, register_payload_reader
from ingest.wire.decode import Limits, decode
from ingest.wire.formats import Format
from ingest.wire.kinds import COUNTERS, EVENTS, HEALTH, LOGS, Kind
from pipeline.record import Record


def register() -> None:
    """Offer a reader for each type of record that is taken in."""
    front = settings.COLLECTOR.ingest
    limits = Limits(
        max_records=1, max_record_bytes=front.max_record_bytes, max_depth=front.max_depth
    )
    for kind in (LOGS, HEALTH, EVENTS, COUNTERS):
        register_payload_reader(kind.type, reader(kind, limits=limits))


def reader(kind: Kind, *, limits: Limits) -> PayloadReader:
    """Reads payloads of the kind, one JSON object each."""

    def read(payload: bytes, *, tenant: str, arrival_us: int) -> Record:
        found = decode(
            payload.replace(b"\n", b" ").replace(b"\r", b" "),
            format=Format.LINES,
            kind=kind,
            tenant=tenant,
            any_tenant=False,
            arrival_us=arrival_us,
            limits=limits,
        )
        if found.rejections:
            raise UnreadablePayload(found.rejections[0].detail)
        records = found.records.get(tenant, [])
        if len(records) != 1:
            raise UnreadablePayload("a payload is one JSON object")
        return records[0]

    return read
