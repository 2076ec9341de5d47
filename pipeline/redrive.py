"""Redriving dead letters: records that go to their sink once more, as a batch with its own name.

The name (origin and number) stays the same however often the batch is sent, so that a sink with
proofs stores it once.  The letters themselves are kept by whoever asked, until `on_done`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

import msgspec

from pipeline.deadletter import DeadLetter
from pipeline.delivery.deliver import Outcome
from pipeline.log.frame import Frame, Share
from pipeline.receipt import Receipt
from pipeline.record import Batch, Part, Record, encoded_sizes


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a redriven batch.

    `refused` are the letters that the sink refused again, with the new error; all others are
    stored, `already_stored` of them by an earlier attempt.  `given_up`: nobody knows what became
    of it, as the engine stopped or the sink went away: send the same batch again.  `split`: one of
    the records is at fault and the sink does not say which; nothing was stored: send its halves,
    as batches with numbers of their own.
    """

    stored: int = 0
    already_stored: int = 0
    refused: list[DeadLetter] = []
    given_up: bool = False
    split: bool = False


class Redrive:
    """A redriven batch on its way; `done` is called once, on a worker's thread."""

    def __init__(self, letters: Sequence[DeadLetter], on_done: Callable[[Redriven], None]) -> None:
        self.letters = letters
        self._on_done = on_done

    def done(self, result: Redriven) -> None:
        self._on_done(result)

    def result_of(self, batch: Batch, outcome: Outcome, refused: list[DeadLetter]) -> Redriven:
        return Redriven(
            stored=batch.count - len(refused) - outcome.already_stored,
            already_stored=outcome.already_stored,
            refused=refused,
        )


def redrive_batch(
    sink: str,
    *,
    origin: str,
    number: int,
    letters: Sequence[DeadLetter],
    now: float,
    on_done: Callable[[Redriven], None],
) -> Batch:
    """The batch of these letters, in their order."""
    parts = [_part(sink, list(alike), now) for _, alike in groupby(letters, key=_in_common)]
    batch = Batch(number=number, log_id=origin, sink=sink, reason="redrive", parts=parts)
    batch.redrive = Redrive(letters, on_done)
    return batch


def _in_common(letter: DeadLetter) -> tuple[str, str, str, str, int]:
    return (
        letter.type,
        letter.tenant,
        letter.request_id,
        letter.traceparent,
        letter.received_us,
    )


def _part(sink: str, letters: list[DeadLetter], now: float) -> Part:
    records = [record_of(letter) for letter in letters]
    nbytes = sum(encoded_sizes(records))
    first = letters[0]
    share = Share(sink=sink, count=len(records), nbytes=nbytes, min_severity=0, required=False)
    frame = Frame(
        type=first.type,
        tenant=first.tenant,
        request_id=first.request_id,
        traceparent=first.traceparent,
        received_us=first.received_us,
        arrived_s=now,
        id_base=first.record_id,
        count=len(records),
        payload=b"",
        shares=(share,),
        receipt=Receipt(count=len(records), owed=1, request_flush=_ignore),
    )
    return Part.of_records(frame, records, nbytes=nbytes)


def record_of(letter: DeadLetter) -> Record:
    """The record inside a letter, with its id."""
    return Record(
        timestamp_us=letter.timestamp_us,
        severity=letter.severity,
        service=letter.service,
        message=letter.message,
        trace_id=letter.trace_id,
        span_id=letter.span_id,
        payload=letter.payload,
        id=letter.record_id,
    )


def letters_of(
    batch: Batch, outcome: Outcome, *, sink_name: str, now_us: int, since_us: int
) -> list[DeadLetter]:
    """The dead letters of an attempt's failures."""
    records = batch.records
    origin = batch.batch_id if batch.redrive is not None else ""
    ends = list(accumulate(part.count for part in batch.parts))
    found = []
    for index in sorted(outcome.failures):
        record, part = records[index], batch.parts[bisect_right(ends, index)]
        found.append(
            DeadLetter(
                sink=batch.sink,
                sink_name=sink_name,
                record_id=record.id,
                type=part.type,
                tenant=part.tenant,
                request_id=part.request_id,
                traceparent=part.traceparent,
                received_us=part.received_us,
                timestamp_us=record.timestamp_us,
                severity=record.severity,
                service=record.service,
                message=record.message,
                trace_id=record.trace_id,
                span_id=record.span_id,
                payload=record.payload,
                reason=outcome.drop_reason,
                error=outcome.failures[index],
                attempts=batch.attempt,
                first_tried_us=since_us,
                last_tried_us=now_us,
                batch_id=batch.batch_id,
                origin=origin,
            )
        )
    return found


def _ignore(receipt: Receipt) -> None:
    return None
