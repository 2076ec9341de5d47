"""What one poison record in every thousand costs its neighbours, against the same load without."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import psycopg

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.postgres import TABLE, RecordsTable, cluster
from benchmarks.rows import INVALID, POISON
from benchmarks.server import Server, ServerFailed

_PICKY = [{"name": "picky", "backend": "benchmarks.picky.PickySink"}]
_ALLOWED = {"COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,benchmarks.picky.*"}
# The table refuses it, whoever writes; a clean load pays for the check as well.
_CONSTRAINT = f"ALTER TABLE {TABLE} ADD CONSTRAINT no_poison CHECK (payload->'poison' IS NULL)"


def measure(plan: Plan) -> list[Figure]:
    return [_postgres(plan), *_named(plan)]


def _figure(where: str, goal: float) -> Figure:
    return Figure(
        name=f"one poison record in 1,000, {where}",
        unit="records/s",
        goal=goal,
        baseline_name="none",
    )


def _postgres(plan: Plan) -> Figure:
    figure = _figure("found by PostgreSQL", 0.6)
    with cluster() as url, Server(database_url=url) as server:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_CONSTRAINT.encode())
        table = RecordsTable(url)
        try:
            _settled(server, plan, bad=POISON, records=plan.records // 5)
            for repetition in range(plan.repetitions):
                plan.say(f"poison, PostgreSQL: {repetition + 1} of {plan.repetitions}")
                rates = []
                for bad in _in_turns(repetition, POISON):
                    table.empty()
                    rates.append((bad, _settled(server, plan, bad=bad, records=plan.records)))
                _add(figure, rates)
        finally:
            table.close()
    return figure


def _named(plan: Plan) -> list[Figure]:
    found = {
        INVALID: _figure("refused by validation", 0.8),
        POISON: _figure("named by the sink", 0.8),
    }
    with Server(sinks=_PICKY, environ=_ALLOWED) as server:
        _settled(server, plan, bad=POISON, records=plan.records // 5)
        for bad, figure in found.items():
            clean = _what_is_left(plan) if bad == INVALID else plan
            # Each is over in half a second: more of them cost little and say more.
            repetitions = 2 * plan.repetitions
            for repetition in range(repetitions):
                plan.say(f"{figure.name}: {repetition + 1} of {repetitions}")
                rates = []
                for one in _in_turns(repetition, bad):
                    load = plan if one else clean
                    rates.append((one, _settled(server, load, bad=one, records=load.records)))
                _add(figure, rates)
    return list(found.values())


def _what_is_left(plan: Plan) -> Plan:
    """The same requests without what validation refuses.

    Both loads then fill the same batches: 1,000 records a request fill one of 5,000 to the brim,
    but 999 leave a last one that is not full, and waits for more as long as it may.
    """
    requests, batch = plan.records // plan.batch, plan.batch - plan.batch // 1000
    return dataclasses.replace(plan, batch=batch, records=requests * batch)


def _in_turns(repetition: int, bad: bytes) -> tuple[bytes, bytes]:
    return (bad, b"") if repetition % 2 == 0 else (b"", bad)


def _add(figure: Figure, rates: list[tuple[bytes, float]]) -> None:
    by_kind = dict(rates)
    clean = by_kind.pop(b"")
    figure.add(next(iter(by_kind.values())), clean)


def _ended(stats: dict[str, Any]) -> tuple[int, int]:
    """Records stored and dead-lettered so far."""
    pipelines = stats["pipelines"]
    stored = sum(one["stored"] + one["already_stored"] for one in pipelines)
    return stored, sum(one["dead_lettered"] for one in pipelines)


def _settled(server: Server, plan: Plan, *, bad: bytes, records: int) -> float:
    """Good records settled a second, from the first request until all have ended."""
    stored, letters = _ended(server.stats())
    result = run_load(
        url=server.url,
        records=records,
        clients=plan.clients,
        batch=plan.batch,
        bad=bad.decode(),
    )
    poison = records // 1000 if bad else 0
    accepted = records - (poison if bad == INVALID else 0)
    if result["records_accepted"] != accepted:
        raise ServerFailed(f"{accepted} records should have been accepted: {result}")
    good = records - poison
    wanted = (stored + good, letters + accepted - good)
    server.wait_for(
        lambda stats: all(have >= want for have, want in zip(_ended(stats), wanted, strict=True)),
        what=f"{wanted} stored and dead-lettered records",
        timeout_s=300,
    )
    return good / (time.time() - float(result["started"]))
