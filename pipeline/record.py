"""What travels: a Record, and the Batch in which it reaches a sink.

A record is held in the log in one form only, the encoded payload of its frame; `Part` decodes
it when a worker needs it.  Nothing here is locked: a record belongs to the thread that made or
decoded it, a batch to the worker that delivers it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pipeline.delivery.deliver import Outcome
    from pipeline.log.frame import Frame, Share
    from pipeline.redrive import Redrive

# OpenTelemetry's severity numbers: the first of each of its six ranges.
TRACE, DEBUG, INFO, WARN, ERROR, FATAL = 1, 5, 9, 13, 17, 21
LEVEL_NAMES = {
    TRACE: "TRACE",
    DEBUG: "DEBUG",
    INFO: "INFO",
    WARN: "WARN",
    ERROR: "ERROR",
    FATAL: "FATAL",
}
_NAME_OF_SEVERITY = ("INFO", *(LEVEL_NAMES[(n - 1) // 4 * 4 + 1] for n in range(1, 25)))


def level_name(severity: int) -> str:
    """The level's word for a severity number of 0 to 24; 0 (unspecified) reads as INFO."""
    return _NAME_OF_SEVERITY[severity]


class Record(msgspec.Struct, array_like=True, gc=False):
    """One log line, event or ping: the envelope common to all types.

    Not locked: it belongs to the thread that made or decoded it.
    `timestamp_us` is the event's own time in microseconds since 1970 UTC, `severity` an
    OpenTelemetry number (1 to 24), `payload` the JSON object as it was sent.  What only one
    type has stays in the payload and is decoded by that type's row encoder.  `id` is 0 until
    the record is read back from the log.
    """

    timestamp_us: int
    severity: int
    service: str
    message: str
    trace_id: str
    span_id: str
    payload: bytes
    id: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Record])
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def encode_records(records: Sequence[Record]) -> bytes:
    """The records as one frame payload (a MessagePack array of arrays)."""
    return _encoder.encode(records)


def decode_records(payload: bytes) -> list[Record]:
    """The inverse of `encode_records`; raises msgspec.DecodeError on anything else."""
    return _decoder.decode(payload)


def encoded_sizes(records: Iterable[Record]) -> list[int]:
    """Bytes of each record inside a frame payload, which has the array's header besides.

    A payload is made before ids are given, so that an id takes one byte there.
    """
    encode = _encoder.encode
    return [len(encode(record)) - len(encode(record.id)) + 1 for record in records]


def encoded_weight(records: Sequence[Record]) -> int:
    """Bytes of the records together inside a frame payload."""
    return payload_bytes(_encoder.encode(records), len(records))


def payload_bytes(payload: bytes, count: int) -> int:
    """What the records of a frame payload weigh: its length without the array's header."""
    return len(payload) - (1 if count < 16 else 3 if count < 1 << 16 else 5)


class _Run:
    """A share's records and their weights, found out once for all the parts it is cut into.

    Weighing alone does not decode the records: a batch that ends inside a frame is cut cheaply.
    """

    __slots__ = ("_ends", "_frame", "_least", "_payload", "_records")

    def __init__(
        self,
        *,
        frame: Frame,
        payload: bytes,
        min_severity: int = 0,
        records: list[Record] | None = None,
    ) -> None:
        self._frame = frame
        self._payload = payload
        self._least = min_severity
        self._records = records
        self._ends: list[int] | None = None

    @property
    def records(self) -> list[Record]:
        """The records with their ids; decoded on the first call."""
        if self._records is None:
            records = self._frame.decode(self._payload)
            if self._least:
                records = [record for record in records if record.severity >= self._least]
            self._records, self._payload = records, b""
        return self._records

    @property
    def ends(self) -> list[int]:
        """The weight (encoded bytes) of the records up to and including each."""
        if self._ends is None:
            if self._payload and not self._least:
                views: Iterable[memoryview] = map(memoryview, _split(self._payload))
                self._ends = list(accumulate(map(len, views)))
            else:
                self._ends = list(accumulate(encoded_sizes(self.records)))
        return self._ends

    def weight(self, start: int, stop: int) -> int:
        ends = self.ends
        return (ends[stop - 1] if stop else 0) - (ends[start - 1] if start else 0)


class Part:
    """A run of one frame's records inside a batch; all of one type, tenant and request.

    `count` records, `nbytes` encoded bytes.  Belongs to the worker thread that delivers its batch.
    """

    # `nbytes` is what the records weigh; `held_bytes` what admission set aside for them, which
    # differs for a sink that takes only part of a frame.  `_payload` is kept besides the frame's
    # own, which the log lets go of as soon as the records have settled.
    __slots__ = (
        "_least",
        "_payload",
        "_records",
        "_run",
        "count",
        "frame",
        "held_bytes",
        "nbytes",
        "start",
    )

    def __init__(
        self,
        *,
        frame: Frame,
        start: int,
        count: int,
        nbytes: int,
        held_bytes: int,
        min_severity: int = 0,
        run: _Run | None = None,
    ) -> None:
        self.frame = frame
        self.start = start
        self.count = count
        self.nbytes = nbytes
        self.held_bytes = held_bytes
        self._payload = frame.payload if run is None else b""
        self._least = min_severity
        self._run = run
        self._records: list[Record] | None = None

    @classmethod
    def of_extent(cls, frame: Frame, share: Share, start: int, count: int) -> Part:
        """A run of a share's records, by their place in it."""
        part = cls(
            frame=frame,
            start=start,
            count=count,
            nbytes=share.nbytes,
            held_bytes=share.weight(count),
            min_severity=share.min_severity,
        )
        if count < share.count:
            part.nbytes = part._whole().weight(start, start + count)
        return part

    @classmethod
    def unread(cls, frame: Frame, share: Share) -> Part:
        """What a cursor that comes to a share has before it."""
        return cls.of_extent(frame, share, share.start, share.unread)

    @classmethod
    def of_records(
        cls, frame: Frame, records: list[Record], *, nbytes: int, held_bytes: int = 0
    ) -> Part:
        """All records of a frame, which are at hand: its payload is not read."""
        return cls(
            frame=frame,
            start=0,
            count=len(records),
            nbytes=nbytes,
            held_bytes=held_bytes,
            run=_Run(frame=frame, payload=b"", records=records),
        )

    @property
    def type(self) -> str:
        """The records' type, as it was offered."""
        return self.frame.type

    @property
    def tenant(self) -> str:
        """Whose the records are."""
        return self.frame.tenant

    @property
    def request_id(self) -> str:
        """The offer's own, or ""."""
        return self.frame.request_id

    @property
    def traceparent(self) -> str:
        """The offer's W3C trace context, or ""."""
        return self.frame.traceparent

    @property
    def received_us(self) -> int:
        """When they were offered, in microseconds since 1970."""
        return self.frame.received_us

    def _whole(self) -> _Run:
        if self._run is None:
            self._run = _Run(frame=self.frame, payload=self._payload, min_severity=self._least)
            self._payload = b""
        return self._run

    @property
    def records(self) -> list[Record]:
        """The records with their ids; decoded once, on the first call."""
        if self._records is None:
            records = self._whole().records
            whole = self.count == len(records)
            self._records = records if whole else records[self.start : self.start + self.count]
        return self._records

    def fitting(self, nbytes: int) -> int:
        """How many of the records, from the first, weigh at most `nbytes` together."""
        run = self._whole()
        before = run.weight(0, self.start)
        return min(bisect_right(run.ends, before + nbytes) - self.start, self.count)

    def split(self, index: int) -> tuple[Part, Part]:
        """Two parts: the records before `index`, and the rest."""
        run = self._whole()
        head = run.weight(self.start, self.start + index)
        held = self.held_bytes * head // self.nbytes
        return (
            Part(
                frame=self.frame,
                start=self.start,
                count=index,
                nbytes=head,
                held_bytes=held,
                run=run,
            ),
            Part(
                frame=self.frame,
                start=self.start + index,
                count=self.count - index,
                nbytes=self.nbytes - head,
                held_bytes=self.held_bytes - held,
                run=run,
            ),
        )


class Batch:
    """Records that go to one sink together, in the order of the log.

    Belongs to the worker thread that delivers it.  `count` records in `parts`, `nbytes` encoded
    bytes; `sink` is the pipeline's key.
    `number` is unique within its log for all sinks; `reason` says what closed the batch: size,
    bytes, time, flush or shutdown.  `attempt` counts the deliveries begun, from 1; half of a split
    batch begins anew, but goes on with the time of its records' first attempt.  Every batch of this
    log and sink numbered below `proofs_below` has settled, and that is on disk: no process will
    send it again.
    """

    __slots__ = (
        "attempt",
        "count",
        "first_attempt_s",
        "first_closed_s",
        "log_id",
        "nbytes",
        "number",
        "outcome",
        "parts",
        "proofs_below",
        "reason",
        "redrive",
        "sink",
    )

    def __init__(
        self, *, number: int, log_id: str, sink: str, reason: str, parts: list[Part]
    ) -> None:
        self.number = number
        self.log_id = log_id
        self.sink = sink
        self.reason = reason
        self.parts = parts
        self.count = sum(part.count for part in parts)
        self.nbytes = sum(part.nbytes for part in parts)
        self.attempt = 0
        self.first_attempt_s: float | None = None
        self.proofs_below = 0
        # What an attempt came to, while its dead letters wait to be kept.
        self.outcome: Outcome | None = None
        # Set for dead letters that are sent once more.
        self.redrive: Redrive | None = None
        # How long the breaker had been closed at the first attempt; see `Breaker.closed_s`.
        self.first_closed_s = 0.0

    @property
    def batch_id(self) -> str:
        """The name of this batch in logs and traces: the log's id and the number."""
        return f"{self.log_id}-{self.number}"

    @property
    def records(self) -> list[Record]:
        """All records, flat, in order."""
        if len(self.parts) == 1:
            return self.parts[0].records
        return [record for part in self.parts for record in part.records]

    def parts_of(self, indexes: Iterable[int]) -> Counter[Part]:
        """How many of the records at `indexes` each part has; parts that have none are left out."""
        ends = list(accumulate(part.count for part in self.parts))
        return Counter(self.parts[bisect_right(ends, index)] for index in indexes)

    def halves(self) -> tuple[list[Part], list[Part]]:
        """The parts of two batches that together are this one; needs at least two records."""
        middle, first, rest = self.count // 2, [], list(self.parts)
        while middle:
            part = rest.pop(0)
            if part.count > middle:
                part, remainder = part.split(middle)
                rest.insert(0, remainder)
            first.append(part)
            middle -= part.count
        return first, rest
