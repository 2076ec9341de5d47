"""Counting, from the request to the sum: exact, once, whatever happens to the server meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.ingest.front import Front
from tests.servers.collector import CollectorServer

NDJSON = {"Content-Type": "application/x-ndjson"}
WAIT_S = 180.0


@pytest.fixture
def counting(front: Front) -> Front:
    """The front door before this installation's database."""
    from pipeline.intake.router import Route
    from pipeline.settings import PipelineSettings
    from pipeline.spec import PipelineSpec
    from sinks.backends.database import DatabaseOptions, DatabaseSink

    sink = DatabaseSink(DatabaseOptions(), name="database")
    front.engine.configure(
        [
            PipelineSpec(
                key="database",
                name="database",
                sink_factory=lambda: sink,
                route=Route(),
                required=True,
                paused=False,
                settings=PipelineSettings(max_workers=1),
                fingerprint="database",
            )
        ]
    )
    return front


def told(response: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(response.content)
    assert (response.status_code, answer["ack"]) == (202, "stored"), answer
    return answer


def totals() -> dict[str, int]:
    from ingest.models import Counter

    return {str(row): row.value for row in Counter.objects.all()}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", '{"counter": "X", "by": 3, "labels": {}}'),
        ("application/json", '[{"counter": "X", "by": 1}, {"counter": "X", "by": 2}]'),
        ("application/x-ndjson", '{"counter": "X"}\n{"counter": "X"}\n{"counter": "X"}\n'),
    ],
)
def test_one_many_and_lines_add_up(counting: Front, content_type: str, body: str) -> None:
    assert totals() == {}
    told(counting.post("/counters?ack=stored", body, content_type))
    assert totals() == {"X": 3}
    told(counting.post("/counters?ack=stored", body, content_type))
    assert totals() == {"X": 6}


@pytest.mark.django_db(transaction=True)
def test_a_bad_increment_costs_only_itself(counting: Front) -> None:
    body = [{"counter": "a"}, {"counter": "b", "by": 0.5}, {"by": 1}, {"counter": "a", "by": 2}]
    answer = told(counting.post("/counters?ack=stored", body))
    assert (answer["accepted"], answer["rejected"]) == (2, 2)
    assert [error["index"] for error in answer["errors"]] == [1, 2]
    assert totals() == {"a": 3}


@pytest.mark.django_db(transaction=True)
def test_a_request_with_a_key_counts_once(counting: Front) -> None:
    from control.idempotency import service

    service.current().start("test")
    try:
        for _ in range(3):
            told(
                counting.post(
                    "/counters?ack=stored", {"counter": "X", "by": 5}, **{"Idempotency-Key": "one"}
                )
            )
    finally:
        service.current().stop(WAIT_S)
    assert totals() == {"X": 5}


@pytest.mark.django_db(transaction=True)
def test_a_request_of_many_is_many_increments_and_one_row(counting: Front) -> None:
    from ingest.models import Counter

    lines = "\n".join(
        json.dumps({"counter": f"c{n % 10}", "labels": {"half": n % 2}}) for n in range(5_000)
    )
    told(counting.post("/counters?ack=stored", lines, "application/x-ndjson"))
    assert Counter.objects.count() == 10
    assert set(Counter.objects.values_list("value", "increments")) == {(500, 500)}


@pytest.mark.django_db
def test_the_door_of_counters_is_like_the_others(front: Front) -> None:
    assert front.post("/counters", b"text", "text/plain").status_code == 415
    assert front.client.head("/counters").status_code == 200
    assert front.client.put("/counters", b"{}").status_code == 405
    assert front.post("/counters", {"counter": "orders", "service": "shop"}).status_code == 202
    assert front.sink.join(1)
    ((part,),) = (batch.parts for batch in front.sink.batches)
    (record,) = part.records
    assert (part.type, record.message, record.service) == ("counter", "orders", "shop")
    assert json.loads(record.payload) == {"counter": "orders", "service": "shop"}


@pytest.mark.django_db
def test_an_edited_increment_is_read_as_the_door_reads_one() -> None:
    from control.ports.payloads import UnreadablePayload, payload_reader

    read = payload_reader("counter")
    assert read is not None
    record = read(b'{"counter": "orders", "by": 2}', tenant="default", arrival_us=1)
    assert record.message == "orders"
    with pytest.raises(UnreadablePayload, match="smaller unit"):
        read(b'{"counter": "orders", "by": 0.1}', tenant="default", arrival_us=1)


def test_a_key_needs_the_scope(front: Front) -> None:
    from control.auth.keys import create_key, keyring
    from control.models import Tenant

    tenant = Tenant.objects.get(slug="default")
    for scopes, status in ((["logs"], 403), (["counters"], 202)):
        _, token = create_key(tenant=tenant, name=scopes[0], scopes=scopes)
        keyring().invalidate()
        assert not keyring().empty
        sent = front.post("/counters", {"counter": "a"}, Authorization=f"Bearer {token}")
        assert sent.status_code == status


def _stored(server: CollectorServer) -> dict[str, int]:
    """What the server's own database says, read beside it."""
    query = "SELECT name, value FROM ingest_counter"
    url = server.environ.get("COLLECTOR_DATABASE_URL")
    if url:
        with psycopg.connect(url) as connection:
            return {str(name): int(value) for name, value in connection.execute(query).fetchall()}
    path: Path = server.data_dir / "records.sqlite3"
    with closing(sqlite3.connect(path, timeout=30)) as database:
        return dict(database.execute(query).fetchall())


class Counting(threading.Thread):
    """Sends numbered requests, each again and again with its key until it is answered 202."""

    def __init__(self, name: str, url: Callable[[], str], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.counter = name
        self.acknowledged = 0
        self._url, self._over = url, stop
        self.once = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not self._over.is_set():
                number += 1
                lines = "\n".join(
                    json.dumps({"counter": self.counter, "by": n % 3}) for n in range(50)
                )
                while not self._send(client, lines, f"{self.counter}-{number}"):
                    pass
                self.acknowledged += sum(n % 3 for n in range(50))
                self.once.set()

    def _send(self, client: httpx.Client, lines: str, key: str) -> bool:
        headers = {**NDJSON, "Idempotency-Key": key}
        try:
            answer = client.post(f"{self._url()}/counters", content=lines, headers=headers)
        except httpx.HTTPError:
            threading.Event().wait(0.05)  # the server is being started again
            return False
        assert answer.status_code in (202, 409, 429, 503), answer.text
        return answer.status_code == 202


@pytest.mark.long
def test_sums_are_exact_after_the_server_was_killed_while_counting(
    collector_server: Callable[..., CollectorServer],
) -> None:
    server = collector_server()
    environ = {
        name: value for name, value in server.environ.items() if name == "COLLECTOR_DATABASE_URL"
    }
    stop = threading.Event()
    current = [server]
    senders = [Counting(f"c{n}", lambda: current[-1].url, stop) for n in range(3)]
    for _ in range(3):
        for sender in senders:
            sender.once.clear()
        for sender in senders:
            assert sender.once.wait(WAIT_S)
        os.killpg(current[-1].pid, signal.SIGKILL)
        current[-1].wait()
        current.append(collector_server(data_dir=server.data_dir, environ=environ, prepare=False))
    stop.set()
    for sender in senders:
        sender.join(WAIT_S)
        assert not sender.is_alive()
    acknowledged = {sender.counter: sender.acknowledged for sender in senders}
    # The logs of the killed are delivered in time: a stop before that leaves them to the next.
    for _ in range(int(WAIT_S / 0.05)):
        if _stored(server) == acknowledged:
            break
        threading.Event().wait(0.05)
    assert current[-1].stop() == 0
    assert _stored(server) == acknowledged
