"""What it costs to answer after the log is synced: ack=wal against ack=memory, in turns."""

from __future__ import annotations

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.server import Server, ServerFailed

_CLIENTS_OF_SINGLES = 16

# Records are thrown away, so that storing them hides nothing of the log's own cost.
_SINKS = [{"name": "null", "backend": "sinks.backends.null.NullSink"}]


def measure(plan: Plan) -> list[Figure]:
    bulk = Figure(
        name="bulk ingest, ack=wal",
        unit="records/s",
        goal=0.85,
        baseline_name="ack=memory",
    )
    single = Figure(
        name=f"one record a request, {_CLIENTS_OF_SINGLES} clients, ack=wal",
        unit="requests/s",
        goal=0.7,
        baseline_name="ack=memory",
    )
    shapes = (
        (bulk, plan.records, plan.batch, plan.clients),
        (single, plan.single_requests, 1, _CLIENTS_OF_SINGLES),
    )
    with Server(sinks=_SINKS) as server:
        for figure, records, batch, clients in shapes:
            for ack in ("memory", "wal"):
                _rate(server, ack, records=records // 5, batch=batch, clients=clients)
            for repetition in range(plan.repetitions):
                plan.say(f"wal, batches of {batch}: {repetition + 1} of {plan.repetitions}")
                order = ("wal", "memory") if repetition % 2 == 0 else ("memory", "wal")
                rates = {
                    ack: _rate(server, ack, records=records, batch=batch, clients=clients)
                    for ack in order
                }
                figure.add(rates["wal"], rates["memory"])
        figure_notes = server.stats().get("log") or {}
    names = ("fsync", "fsyncs", "fsync_seconds_sum", "appended_frames", "appended_bytes")
    bulk.notes = {name: figure_notes.get(name) for name in names}
    return [bulk, single]


def _rate(server: Server, ack: str, *, records: int, batch: int, clients: int) -> float:
    """Records accepted a second, from the first request to the last answer."""
    result = run_load(url=server.url, records=records, clients=clients, batch=batch, ack=ack)
    if result["records_accepted"] != records:
        raise ServerFailed(f"of {records} records not all were accepted: {result}")
    return records / float(result["finished"] - result["started"])
