"""HTTP to stored in PostgreSQL, against one COPY of the same rows; also while clients hammer on."""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from benchmarks.load import GeneratorProcess, run_load
from benchmarks.plan import Plan
from benchmarks.postgres import RecordsTable, cluster
from benchmarks.server import Server, ServerFailed


def measure(plan: Plan) -> list[Figure]:
    """With the full-text index that a new installation has, and without it, as `closed` leaves
    the current day: the index takes most of the time, of the COPY as well."""
    return [
        figure
        for policy, name in (("live", ""), ("closed", ", search index built later"))
        for figure in _measure(plan, policy, name)
    ]


def _measure(plan: Plan, policy: str, name: str) -> list[Figure]:
    plain = Figure(
        name=f"HTTP -> PostgreSQL, stored{name}",
        unit="records/s",
        goal=0.7,
        baseline_name="one COPY of the same rows",
    )
    hammered = Figure(
        name=f"HTTP -> PostgreSQL, stored, while others hammer through 429s{name}",
        unit="records/s",
        goal=0.5,
        baseline_name="one COPY of the same rows",
    )
    environ = {"COLLECTOR_SEARCH_INDEX": policy}
    with cluster() as url, Server(database_url=url, environ=environ) as server:
        table = RecordsTable(url)
        try:
            _store(server, table, plan, records=plan.records // 5)  # warm both
            table.copy_seconds([])
            for repetition in range(plan.repetitions):
                plan.say(f"http{name}: repetition {repetition + 1} of {plan.repetitions}")
                table.empty()
                stored = _store(server, table, plan, records=plan.records)
                copied = _copy(table)
                plain.add(stored, copied)
            for repetition in range(plan.repetitions):
                plan.say(f"http{name}, hammered: repetition {repetition + 1} of {plan.repetitions}")
                table.empty()
                stored, refused = _hammer(server, table, plan)
                hammered.notes.setdefault("refused_requests", []).append(refused)
                hammered.add(stored, _copy(table, at_most=plan.records))
        finally:
            table.close()
    return [plain, hammered]


def _copy(table: RecordsTable, at_most: int = 0) -> float:
    """Rows a second of a COPY of what is in the table, into the emptied table."""
    blocks = table.dump()
    rows = sum(block.count(b"\n") for block in blocks)
    if at_most and rows > at_most:
        blocks = blocks[: max(len(blocks) * at_most // rows, 1)]
        blocks[-1] = blocks[-1][: blocks[-1].rfind(b"\n") + 1]
        rows = sum(block.count(b"\n") for block in blocks)
    table.empty()
    seconds = table.copy_seconds(blocks)
    if table.count() != rows:
        raise ServerFailed(f"COPY of {rows} rows left {table.count()} in the table")
    return rows / seconds


def _stored(server: Server) -> int:
    return sum(pipeline["stored"] for pipeline in server.stats()["pipelines"])


def _store(server: Server, table: RecordsTable, plan: Plan, *, records: int) -> float:
    before, rows_before = _stored(server), table.count()
    result = run_load(
        url=server.url, records=records, clients=plan.clients, batch=plan.batch, api_key=server.key
    )
    if result["records_accepted"] != records:
        raise ServerFailed(f"of {records} records not all were accepted: {result}")
    ended = server.wait_until_stored(before + records)
    if table.count() - rows_before != records:
        raise ServerFailed(f"{records} accepted, {table.count() - rows_before} in the table")
    return float(records / (ended - result["started"]))


def _hammer(server: Server, table: RecordsTable, plan: Plan) -> tuple[float, int]:
    """Stored records a second from the first request until all accepted ones are stored."""
    before = _stored(server)
    common = {
        "url": server.url,
        "records": 1000 * plan.records,
        "batch": plan.batch,
        "duration_s": plan.hammer_seconds,
        "retry_for_s": 2.0,
        "api_key": server.key,
    }
    with (
        GeneratorProcess(**common, clients=plan.clients) as patient,
        GeneratorProcess(**common, clients=plan.clients, retry_pause_s=0.005) as impatient,
    ):
        started = time.time()
        patient.go()
        impatient.go()
        results = [patient.result(), impatient.result()]
    accepted = sum(result["records_accepted"] for result in results)
    ended = server.wait_until_stored(before + accepted)
    if table.count() != accepted:
        raise ServerFailed(f"{accepted} accepted, {table.count()} in the table")
    refused = sum(result["statuses"].get("429", 0) for result in results)
    return accepted / (ended - started), refused
