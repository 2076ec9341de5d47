"""The frame: one request's records of one type and tenant, as the log holds them.

A frame is made by a request thread and unchanged from then on, but for what has settled of it:
`settled`, its own and each share's, is guarded by the lock of the log that holds it.
Both are C structs, made for every offer, and left out of the garbage collector's rounds: a frame
refers to nothing that refers to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pipeline.ids import id_run
from pipeline.record import Record, decode_records

if TYPE_CHECKING:
    from pipeline.receipt import Receipt


class Share(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """What one sink is owed of a frame: the records at or above `min_severity`.

    `settled` counts those that have ended, `unstored` those of them that were not stored; the share
    of a required sink is a debt to the receipt.  The first `start` of them were read by a process
    that is gone.
    """

    sink: str
    count: int
    nbytes: int
    min_severity: int
    required: bool
    settled: int = 0
    unstored: int = 0
    start: int = 0

    @property
    def unread(self) -> int:
        """How many records a cursor that comes to this share has before it."""
        return self.count - self.start

    def weight(self, count: int) -> int:
        """What is set aside for so many of the records (bytes)."""
        return self.nbytes if count == self.count else self.nbytes * count // self.count


class Frame(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """Records with what they have in common; `position` is its place in the log, from 0.

    `received_us` is the time of arrival (microseconds since 1970), `arrived_s` the same on the
    monotonic clock of this process.  `settled` counts the shares that have ended.
    """

    type: str
    tenant: str
    request_id: str
    traceparent: str
    received_us: int
    arrived_s: float
    id_base: int
    count: int
    payload: bytes
    shares: tuple[Share, ...]
    receipt: Receipt
    key: str = ""
    settled: int = 0
    # Set by the log that takes the frame in: `segment` is the number of the segment that holds it
    # in memory; `file` and `offset` tell where it is in the segment files, -1 for nowhere.
    position: int = -1
    segment: int = -1
    file: int = -1
    offset: int = -1

    @property
    def pending(self) -> bool:
        """Whether some sink is still owed records of this frame."""
        return self.settled < len(self.shares)

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
