"""A log that filled while its sink was away, delivered after a kill, against the same load live.

The second server life reads everything from the dead one's files; its sink is paused until it has
adopted them, so that starting a server is not measured.
"""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.postgres import RecordsTable, cluster
from benchmarks.server import Server, ServerFailed

_ENVIRON = {"COLLECTOR_SINK_POLL_S": "0.05", "COLLECTOR_WAL_ADOPT_EVERY_S": "0.5"}


def measure(plan: Plan) -> list[Figure]:
    figure = Figure(
        name="replay of a killed server's log -> PostgreSQL",
        unit="records/s",
        goal=1.0,
        baseline_name="the same records live, HTTP -> PostgreSQL",
    )
    for repetition in range(plan.repetitions):
        plan.say(f"replay: repetition {repetition + 1} of {plan.repetitions}")
        with cluster() as url, Server(database_url=url, environ=_ENVIRON) as server:
            table = RecordsTable(url)
            try:
                _live(server, table, plan, records=plan.records // 5)  # warm
                live = _live(server, table, plan, records=plan.records)
                table.empty()
                filled = _fill(server, plan)
                figure.notes.setdefault("fill_records_per_s", []).append(round(filled))
                figure.add(_replay(server, table, plan), live)
            finally:
                table.close()
    return [figure]


def _send(server: Server, plan: Plan, *, records: int) -> dict[str, float]:
    result = run_load(
        url=server.url, records=records, clients=plan.clients, batch=plan.batch, ack="wal"
    )
    if result["records_accepted"] != records:
        raise ServerFailed(f"of {records} records not all were accepted: {result}")
    return result


def _live(server: Server, table: RecordsTable, plan: Plan, *, records: int) -> float:
    table.empty()
    result = _send(server, plan, records=records)
    _wait_for_rows(table, records)
    return records / (time.time() - result["started"])


def _fill(server: Server, plan: Plan) -> float:
    server.pause_sinks(True)
    server.wait_for(lambda stats: stats["pipelines"][0]["paused"], what="the pause")
    result = _send(server, plan, records=plan.records)
    server.restart_killed()
    server.wait_for(
        lambda stats: sum(log["left_records"] for log in stats["log"]["adopted"]) >= plan.records,
        what="the log's adoption",
    )
    return plan.records / (result["finished"] - result["started"])


def _replay(server: Server, table: RecordsTable, plan: Plan) -> float:
    server.pause_sinks(False)
    # The change itself is seen within a poll; what it takes to make it is nobody's delivery.
    started = time.time()
    _wait_for_rows(table, plan.records)
    return plan.records / (time.time() - started)


def _wait_for_rows(table: RecordsTable, rows: int, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while (count := table.count()) < rows:
        if time.monotonic() > deadline:
            raise ServerFailed(f"waited {timeout_s:g} s for {rows} rows; there are {count}")
        time.sleep(0.05)
    if count > rows:
        raise ServerFailed(f"{rows} records were sent, {count} rows are there")
