"""One round's installation: its files, its databases, and the lives of its server.

Each round has a data directory, databases and server processes of its own; all of them end with
the `with` block. Used from the round's thread; `Watch` has a thread of its own.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import psycopg

from tests.chaos.cluster import Cluster
from tests.chaos.oracle import Stored, parsed
from tests.chaos.template import FILES, THIRD_PARTY, Template
from tests.servers.collector import CollectorServer
from tests.servers.proxy import Proxy, postgres_proxy

# Short, so that a round shows in seconds what an outage shows in minutes.
_HASTY = {
    "COLLECTOR_PIPELINE_RETRY_CAP_S": "1",
    "COLLECTOR_PIPELINE_BREAKER_OPEN_S": "1",
    "COLLECTOR_PIPELINE_ATTEMPT_TIMEOUT_S": "4",
    "COLLECTOR_WAL_ADOPT_EVERY_S": "1",
    "COLLECTOR_WAL_SEGMENT_BYTES": str(256 * 1024),
    "COLLECTOR_ACK_TIMEOUT_S": "3",
    "COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,tests.chaos.sinks.*",
    "COLLECTOR_LOG_LEVEL": "INFO",
}
_STOP_S = 45


@dataclass(kw_only=True)
class Wishes:
    """What a fault needs of the installation before the server starts."""

    workers: int = 1
    environ: dict[str, str] = field(default_factory=dict)
    proxied: bool = False  # the records database is reached through the proxy
    proxied_control: bool = False  # the control database too


class World:
    def __init__(
        self, *, directory: Path, template: Template, cluster: Cluster | None, wishes: Wishes
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.cluster = cluster
        self.lives: list[CollectorServer] = []
        self.proxy: Proxy | None = None
        self.stack = ExitStack()
        self._template = template
        self._wishes = wishes
        self._environ: dict[str, str] = {}
        self._database = ""

    def __enter__(self) -> World:
        try:
            self._environ = {**_HASTY, **self._wishes.environ}
            self._environ["COLLECTOR_WORKERS"] = str(self._wishes.workers)
            self._template.copy_to(self.data_dir)
            if self.cluster is not None:
                self._database = self.cluster.create_database(like=self._template.database)
                self.stack.callback(self.cluster.drop_database, self._database)
                self._environ |= self._urls()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _urls(self) -> dict[str, str]:
        if not self._wishes.proxied:
            return {"COLLECTOR_DATABASE_URL": self._database}
        through, self.proxy = self.stack.enter_context(postgres_proxy(self._database))
        parts = psycopg.conninfo.conninfo_to_dict(through)
        records = f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{parts['dbname']}"
        control = records if self._wishes.proxied_control else self._database
        return {"COLLECTOR_DATABASE_URL": control, "COLLECTOR_RECORDS_DATABASE_URL": records}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self.lives:
            server.end()
        self.stack.close()

    # --- the server's lives ----------------------------------------------------------------

    @property
    def server(self) -> CollectorServer:
        return self.lives[-1]

    @property
    def url(self) -> str:
        return self.lives[-1].url if self.lives else ""

    def start(self) -> None:
        server = CollectorServer(data_dir=self.data_dir, environ=self._environ)
        self.lives.append(server)
        server.start()

    def kill(self) -> None:
        """SIGKILL the whole of the server at once."""
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.server.pid).children()

    def terminate(self) -> int:
        self.server.send(signal.SIGTERM)
        return self.server.wait(_STOP_S)

    @property
    def output(self) -> str:
        return "\n".join(
            f"[life {n}] {line}" for n, one in enumerate(self.lives) for line in one.lines
        )

    # --- what is stored --------------------------------------------------------------------

    @property
    def wal(self) -> Path:
        return Path(self._environ.get("COLLECTOR_WAL_DIRECTORY", self.data_dir / "wal"))

    @property
    def files(self) -> Path:
        return self.data_dir / FILES

    @property
    def third_party(self) -> Path:
        return self.data_dir / THIRD_PARTY

    def execute(self, statement: str) -> None:
        """Beside the server, on the records database."""
        if self._database:
            with psycopg.connect(self._database, autocommit=True) as connection:
                connection.execute(statement.encode())
            return
        with closing(sqlite3.connect(self.data_dir / "records.sqlite3", timeout=30)) as database:
            database.execute(statement)
            database.commit()

    def _rows(self, query: str, *, control: bool = False) -> Iterator[tuple[Any, ...]]:
        if self._database:
            with psycopg.connect(self._database) as connection:
                yield from connection.execute(query.encode())
            return
        file = self.data_dir / ("control.sqlite3" if control else "records.sqlite3")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            yield from database.execute(query)

    def stored_in_database(self) -> Iterator[Stored]:
        for message, payload in self._rows("SELECT message, payload FROM ingest_logrecord"):
            yield Stored(id=message, payload=parsed(payload))

    def stored_in_files(self, directory: Path, *, field: str = "") -> Iterator[Stored]:
        """Whole lines; one that a kill tore is none."""
        for path in directory.rglob("*.ndjson*"):
            with path.open("rb") as file:
                for line in file:
                    try:
                        payload = parsed(line)
                    except ValueError:
                        continue
                    payload = payload[field] if field else payload
                    yield Stored(id=payload["id"], payload=payload)

    def letters(self) -> dict[str, Counter[str]]:
        """Dead letters by the name of their sink and the record's own id, discarded ones too."""
        found: dict[str, Counter[str]] = {}
        query = "SELECT sink_name, payload FROM sinks_deadletter"
        for sink, payload in self._rows(query, control=True):
            payload = bytes(payload) if isinstance(payload, memoryview) else payload
            found.setdefault(sink, Counter())[parsed(payload)["id"]] += 1
        return found
