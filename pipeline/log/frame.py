"""The frame: one request's records of one type and tenant, as the log holds them.

A frame is made by a request thread and unchanged from then on, but for what is left of it to
settle: `pending` and each share's `left` are guarded by the lock of the log that holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ids import id_run
from pipeline.record import Record, decode_records, payload_bytes

if TYPE_CHECKING:
    from pipeline.log.segment import Segment
    from pipeline.receipt import Receipt


class Share:
    """What one sink is owed of a frame: the records at or above `min_severity`.

    `left` counts those not yet settled, `unstored` those that ended without being stored; the share
    of a required sink is a debt to the receipt.
    """

    __slots__ = ("count", "left", "min_severity", "nbytes", "required", "sink", "unstored")

    def __init__(
        self, *, sink: str, count: int, nbytes: int, min_severity: int, required: bool
    ) -> None:
        self.sink = sink
        self.count = count
        self.nbytes = nbytes
        self.min_severity = min_severity
        self.required = required
        self.left = count
        self.unstored = 0


class Frame:
    """Records with what they have in common; `position` is its place in the log, from 0.

    `received_us` is the time of arrival (microseconds since 1970), `arrived_s` the same on the
    monotonic clock of this process.
    """

    __slots__ = (
        "arrived_s",
        "count",
        "id_base",
        "nbytes",
        "payload",
        "pending",
        "position",
        "receipt",
        "received_us",
        "request_id",
        "segment",
        "shares",
        "tenant",
        "traceparent",
        "type",
    )

    def __init__(
        self,
        *,
        type: str,
        tenant: str,
        request_id: str,
        traceparent: str,
        received_us: int,
        arrived_s: float,
        id_base: int,
        count: int,
        payload: bytes,
        shares: tuple[Share, ...],
        receipt: Receipt,
    ) -> None:
        self.type = type
        self.tenant = tenant
        self.request_id = request_id
        self.traceparent = traceparent
        self.received_us = received_us
        self.arrived_s = arrived_s
        self.id_base = id_base
        self.count = count
        self.payload = payload
        self.nbytes = payload_bytes(payload, count)
        self.shares = shares
        self.receipt = receipt
        self.pending = len(shares)
        # Both are set by the log that takes the frame in.
        self.position = -1
        self.segment: Segment

    def share_of(self, sink: str) -> Share | None:
        for share in self.shares:
            if share.sink == sink:
                return share
        return None

    def read(self, min_severity: int = 0) -> list[Record]:
        """The records at or above `min_severity`, decoded anew, with their ids."""
        records = self.decode(self.payload)
        if min_severity:
            return [record for record in records if record.severity >= min_severity]
        return records

    def decode(self, payload: bytes) -> list[Record]:
        """All records of this frame's `payload`, which the caller may have kept, with their ids."""
        records = decode_records(payload)
        for record, record_id in zip(records, id_run(self.id_base, self.count), strict=True):
            record.id = record_id
        return records
