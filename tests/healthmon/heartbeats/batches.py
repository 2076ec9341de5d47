"""Batches as sinks get them."""

from __future__ import annotations

from pipeline.log.frame import Frame
from pipeline.receipt import Receipt
from pipeline.record import Batch, Part, Record, encode_records


def batch_of(
    records: list[Record],
    *,
    type: str = "ping",
    tenant: str = "default",
    received_us: int = 1_760_000_000_000_000,
    base: int = 1,
) -> Batch:
    """A batch of one frame, as a worker hands it to a sink; the records' ids count from `base`."""
    frame = Frame(
        type=type,
        tenant=tenant,
        request_id="",
        traceparent="",
        received_us=received_us,
        arrived_s=0.0,
        id_base=base,
        count=len(records),
        payload=encode_records(records),
        shares=(),
        receipt=Receipt(count=len(records), owed=1, request_flush=lambda receipt: None),
        key="",
    )
    payload = len(frame.payload)
    part = Part(frame=frame, start=0, count=len(records), nbytes=payload, held_bytes=payload)
    return Batch(number=1, log_id="log", sink="internal-heartbeats", reason="time", parts=[part])
