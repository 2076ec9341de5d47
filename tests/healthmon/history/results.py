"""Batches of results for the tests of the history, with ids that follow the time of arrival."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from healthmon.history.records import record_of
from healthmon.history.sink import ResultsSink
from healthmon.probes.kind import Result
from pipeline.ids import first_id_at
from pipeline.record import Batch, Record
from sinks.handmade import make_batch, make_part
from sinks.options import NoOptions

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
LOG_ID = f"history-{uuid.uuid4().hex}"  # no other test's proofs are in its way
_sequence = itertools.count()
_numbers = itertools.count(1)


def us(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def sample(
    target_id: int = 1,
    at: datetime = START,
    total_ms: float = 10.0,
    outcome: str = "ok",
    *,
    arrived: datetime | None = None,
    **fields: object,
) -> tuple[datetime, Record]:
    """A result and when it arrived; by default a second after it began."""
    arrived = arrived or at + timedelta(seconds=1)
    result = Result(outcome=outcome, total_ms=total_ms, **fields)  # type: ignore[arg-type]
    made = record_of(target_id, f"target-{target_id}", us(at), result)
    # The sequence keeps ids of one moment apart, across the run.
    made.id = first_id_at(us(arrived)) + next(_sequence) % (1 << 22)
    return arrived, made


def batch_of(samples: Iterable[tuple[datetime, Record]], *, log_id: str = LOG_ID) -> Batch:
    """One part for each moment of arrival."""
    by_arrival: dict[datetime, list[Record]] = {}
    for arrived, made in samples:
        by_arrival.setdefault(arrived, []).append(made)
    parts = [
        make_part(sorted(records, key=lambda r: r.id), type="probe", received_us=us(arrived))
        for arrived, records in sorted(by_arrival.items())
    ]
    return make_batch(parts, number=next(_numbers), log_id=log_id, sink="internal-results")


def every(seconds: float, count: int, *, start: datetime = START) -> list[datetime]:
    return [start + timedelta(seconds=seconds * n) for n in range(count)]


def new_sink() -> ResultsSink:
    sink = ResultsSink(NoOptions(), name="results")
    sink.open()
    return sink


def store(samples: Iterable[tuple[datetime, Record]], sink: ResultsSink | None = None) -> Batch:
    """Write the results as the pipeline would."""
    own = sink or new_sink()
    try:
        batch = batch_of(samples)
        own.write(batch)
    finally:
        if sink is None:
            own.close()
    return batch
