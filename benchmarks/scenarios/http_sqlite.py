"""HTTP to stored in SQLite, against one raw executemany of the same rows into the same table."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.postgres import TABLE
from benchmarks.server import Server, ServerFailed


def measure(plan: Plan) -> list[Figure]:
    figure = Figure(
        name="HTTP -> SQLite, stored",
        unit="records/s",
        goal=0.4,
        baseline_name="one executemany of the same rows",
    )
    for repetition in range(plan.repetitions):
        plan.say(f"sqlite: repetition {repetition + 1} of {plan.repetitions}")
        with Server() as server:
            records = plan.records // 2
            result = run_load(
                url=server.url, records=records, clients=plan.clients, batch=plan.batch
            )
            if result["records_accepted"] != records:
                raise ServerFailed(f"of {records} records not all were accepted: {result}")
            ended = server.wait_until_stored(records)
            figure.add(
                records / (ended - result["started"]),
                _executemany(_records_file(server.directory), records),
            )
    return [figure]


def _records_file(directory: Path) -> Path:
    found = [path for path in directory.glob("**/records*.sqlite3") if path.is_file()]
    if len(found) != 1:
        raise ServerFailed(f"expected one records database in {directory}, found {found}")
    return found[0]


def _executemany(path: Path, expected: int) -> float:
    """Rows a second, in one transaction, on an emptied copy with the server's own pragmas."""
    with sqlite3.connect(path) as source:
        rows = source.execute(f"SELECT * FROM {TABLE} ORDER BY id").fetchall()
    source.close()
    if len(rows) != expected:
        raise ServerFailed(f"{expected} accepted, {len(rows)} in the table")
    copy = path.with_name("baseline.sqlite3")
    shutil.copyfile(path, copy)
    connection = sqlite3.connect(copy, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"DELETE FROM {TABLE}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        marks = ", ".join("?" * len(rows[0]))
        started = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", rows)
        connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - started)
    finally:
        connection.close()
