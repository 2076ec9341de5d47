"""The audit profile: small batches, a short wait, a short queue, COPY; every event found once.

Fifty thousand events by concurrent clients through the real server into a real PostgreSQL.  The
figures are printed (`pytest -s`), not judged: only what is lost or doubled fails.
"""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.servers.collector import CollectorServer

EVENTS = 50_000
CLIENTS = 16
EVENTS_A_REQUEST = 10
PROFILE = {
    "COLLECTOR_PIPELINE_MAX_RECORDS": "500",
    "COLLECTOR_PIPELINE_MAX_WAIT_S": "0.2",
    "COLLECTOR_PIPELINE_CAPACITY_RECORDS": "2048",
}


class AuditClient(threading.Thread):
    """Sends its share of the events over one connection, each until it is accepted."""

    def __init__(self, *, number: int, url: str) -> None:
        super().__init__(name=f"audit-client-{number}", daemon=True)
        parts = urlsplit(url)
        self._ids = range(number, EVENTS, CLIENTS)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        self._pause = threading.Event()
        self.latencies_s: list[float] = []
        self.refused = 0
        self.unexpected: list[bytes] = []

    def run(self) -> None:
        try:
            for start in range(0, len(self._ids), EVENTS_A_REQUEST):
                self._send(self._ids[start : start + EVENTS_A_REQUEST])
        finally:
            self._connection.close()

    def _send(self, ids: range) -> None:
        body = json.dumps(
            [{"user_id": f"u-{n % 997}", "action": "update", "sequence": n} for n in ids]
        )
        while True:
            began = time.perf_counter()
            self._connection.request("POST", "/event", body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            told = response.read()
            if response.status == 202:
                self.latencies_s.append(time.perf_counter() - began)
                return
            if response.status != 429:
                self.unexpected.append(told)
                return
            self.refused += 1
            self._pause.wait(float(response.headers["Retry-After"]))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_fifty_thousand_audit_events_are_each_found_once(
    collector_server: Callable[..., CollectorServer],
    postgres_dsn: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = collector_server(
        environ={**PROFILE, "COLLECTOR_DATABASE_URL": postgres_dsn}, started=False
    )
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        # The database's own clock tells when each row was written.
        database.execute(
            "ALTER TABLE ingest_auditevent "
            "ADD COLUMN written_at timestamptz NOT NULL DEFAULT clock_timestamp()"
        )
        server.start()
        clients = [AuditClient(number=number, url=server.url) for number in range(CLIENTS)]
        began = time.perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join(240)
        sent_s = time.perf_counter() - began
        assert [told for client in clients for told in client.unexpected] == [], server.output
        assert server.stop() == 0
        (total, distinct, lowest, highest) = _row(
            database,
            "SELECT count(*), count(DISTINCT (payload->>'sequence')::int), "
            "min((payload->>'sequence')::int), max((payload->>'sequence')::int) "
            "FROM ingest_auditevent",
        )
        assert (total, distinct, lowest, highest) == (EVENTS, EVENTS, 0, EVENTS - 1)
        (p50, p99, spent_s) = _row(
            database,
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY delay), "
            "percentile_cont(0.99) WITHIN GROUP (ORDER BY delay), "
            "extract(epoch FROM max(written_at) - min(received_at)) FROM (SELECT written_at, "
            "received_at, extract(epoch FROM written_at - received_at) AS delay "
            "FROM ingest_auditevent) AS delays",
        )
    latencies = [latency for client in clients for latency in client.latencies_s]
    with capsys.disabled():
        print(
            f"\naudit profile: {EVENTS} events, {CLIENTS} clients, "
            f"{EVENTS_A_REQUEST} events a request\n"
            f"  API latency      p50 {percentile(latencies, 0.5) * 1e3:7.1f} ms"
            f"   p99 {percentile(latencies, 0.99) * 1e3:7.1f} ms\n"
            f"  offer to stored  p50 {float(p50) * 1e3:7.1f} ms   p99 {float(p99) * 1e3:7.1f} ms\n"
            f"  {EVENTS / sent_s:,.0f} events/s accepted, {EVENTS / float(spent_s):,.0f} stored; "
            f"{sum(client.refused for client in clients)} requests answered 429 and sent again"
        )


def _row(database: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = database.execute(query).fetchone()  # type: ignore[arg-type]
    assert row is not None
    found: tuple[Any, ...] = row
    return found
