"""Batches that no log made: the marked record of a trial, and what tests hand to a sink."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.log.frame import Frame
from pipeline.receipt import Receipt
from pipeline.record import Batch, Part, Record, encode_records, payload_bytes


def make_part(
    records: Sequence[Record],
    *,
    type: str = "log",
    tenant: str = "default",
    received_us: int,
    request_id: str = "",
    traceparent: str = "",
) -> Part:
    """A part of records that have their ids already."""
    payload = encode_records(records)
    frame = Frame(
        type=type,
        tenant=tenant,
        request_id=request_id,
        traceparent=traceparent,
        received_us=received_us,
        arrived_s=0.0,
        id_base=records[0].id,
        count=len(records),
        payload=payload,
        shares=(),
        receipt=Receipt(count=len(records), owed=0, request_flush=lambda receipt: None),
    )
    nbytes = payload_bytes(payload, len(records))
    return Part.of_records(frame, list(records), nbytes=nbytes, held_bytes=nbytes)


def make_batch(
    parts: list[Part], *, number: int = 1, log_id: str = "handmade", sink: str = "handmade"
) -> Batch:
    """A batch of these parts, on its first attempt."""
    batch = Batch(number=number, log_id=log_id, sink=sink, reason="flush", parts=parts)
    batch.attempt = 1
    return batch
