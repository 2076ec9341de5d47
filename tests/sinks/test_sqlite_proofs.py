"""The table of proofs in SQLite: one made by an earlier version gets its column, once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sinks.sqlite.beside import PROOFS, PieceProofs
from tests.sinks.contract import WAIT_S
from tests.sinks.records import records
from tests.sinks.warehouse import checkpointed

EARLIER = (
    f"CREATE TABLE {PROOFS} (log_id text NOT NULL, number integer NOT NULL, piece integer NOT "
    "NULL, stored_at text NOT NULL DEFAULT CURRENT_TIMESTAMP, failures text, "
    "PRIMARY KEY (log_id, number, piece)) WITHOUT ROWID"
)

Connect = Callable[[], sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        made.append(
            sqlite3.connect(
                tmp_path / "records", timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
        )
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def test_an_earlier_table_keeps_its_proofs_until_their_log_is_finished(connect: Connect) -> None:
    connection = connect()
    connection.execute(EARLIER)
    connection.execute(f"INSERT INTO {PROOFS} (log_id, number, piece) VALUES ('log', 7, 0)")
    proofs = PieceProofs()
    proofs.prepare(connection)
    proofs.prepare(connection)
    sent = checkpointed(records(1), log_id="log", number=7, below=0, sink="slow")
    swift = checkpointed(records(1), log_id="log", number=9_000, below=8_000, sink="swift")
    assert not proofs.claim(connection, sent, 0)
    assert proofs.claim(connection, swift, 0)
    proofs.prune(connection, swift)
    assert not proofs.claim(connection, sent, 0)
    proofs.forget(connection, "log")
    assert proofs.claim(connection, sent, 0)


def test_two_processes_may_add_the_column_at_once(connect: Connect) -> None:
    connect().execute(EARLIER)
    start, failed = threading.Barrier(4), []

    def prepare() -> None:
        connection = connect()
        start.wait(WAIT_S)
        try:
            PieceProofs().prepare(connection)
        except sqlite3.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert failed == []
    columns = [row[1] for row in connect().execute(f"PRAGMA table_info({PROOFS})")]
    assert columns.count("sink") == 1
