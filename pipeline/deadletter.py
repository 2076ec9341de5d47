"""Dead letters: what a pipeline hands over when a record can never be stored.

A `DeadLetterBox` is filled in by whoever embeds the engine.  Workers call `put` with no lock held,
before the records are settled; without a box such records are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record that one sink refused for good, or that was given up for it; never changed.

    `sink` is the pipeline's key, `record_id` the record's: together they name the letter.
    `reason` is one word (permanent, attempts, age), `error` the sink's own words, `severity` an
    OpenTelemetry number, `attempts` how often it was tried.  Times (`_us`) are microseconds since
    1970.  `origin` names the letter's redrive, when it
    came back from one: `<log_id>-<number>` of the redriven batch, else "".
    """

    sink: str
    sink_name: str
    record_id: int
    type: str
    tenant: str
    request_id: str
    traceparent: str
    received_us: int
    timestamp_us: int
    severity: int
    service: str
    message: str
    trace_id: str
    span_id: str
    payload: bytes
    reason: str
    error: str
    attempts: int
    first_tried_us: int
    last_tried_us: int
    batch_id: str
    origin: str = ""


class DeadLetterBox(Protocol):
    """Where dead letters are kept.  Called on worker threads, several at a time, without a lock."""

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters for good: when this returns they survive a crash.

        Called again with letters that are kept already (by sink and record id), it keeps them
        once.  Whatever it raises means that they are not kept: the batch is tried again later.
        """
