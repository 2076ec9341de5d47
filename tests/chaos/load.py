"""The load: threads that post mixed requests at a bounded rate, and tell the oracle what came back.

Some requests carry an Idempotency-Key and are sent again, byte for byte, until a 2xx comes; the
others are sent once.  Threads end by `stop`; keyed requests in the air get `patience_s` more.
"""

from __future__ import annotations

import gzip
import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.oracle import Oracle, Record

_ACKS = ("wal", "wal", "wal", "stored", "memory")
_SIZES = (1, 1, 1, 10, 10, 10, 10, 500)
_ANSWER_S = 6.0
_PAUSE_S = (0.02, 0.10)
_RETRIED = (409, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Request:
    records: list[Record]
    ack: str
    headers: dict[str, str]
    body: bytes
    key: str

    @property
    def asked(self) -> str:
        """A keyed request is answered from the log, whatever it asks for."""
        return "wal" if self.key and self.ack == "memory" else self.ack


def make_request(oracle: Oracle, rng: random.Random, *, poison: bool) -> Request:
    count = rng.choice(_SIZES)
    bad = rng.randrange(1, 3) if count > 1 and rng.random() < 0.1 else 0
    # At least one in a thousand, and never so many that the sink itself is at fault.
    poisoned = 1 if poison and (count == 500 or (count == 10 and rng.random() < 0.02)) else 0
    records = oracle.issue(count, bad=bad, poison=poisoned)
    headers = {"Content-Type": "application/json"}
    if rng.random() < 0.5:
        headers["Content-Type"] = "application/x-ndjson"
        body = "\n".join(json.dumps(record) for record in records).encode()
    else:
        one = count == 1 and rng.random() < 0.5
        body = json.dumps(records[0] if one else records, ensure_ascii=rng.random() < 0.5).encode()
    if rng.random() < 0.3:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1)
    key = ""
    if rng.random() < 0.4:
        headers["Idempotency-Key"] = key = str(uuid.UUID(int=rng.getrandbits(128)))
    return Request(records=records, ack=rng.choice(_ACKS), headers=headers, body=body, key=key)


class Load:
    def __init__(
        self,
        *,
        oracle: Oracle,
        url: Callable[[], str],
        seed: int,
        threads: int = 5,
        patience_s: float = 60.0,
    ) -> None:
        self._oracle = oracle
        self._url = url
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self._give_up_at = 0.0
        self.poison = False  # read by each thread before each request
        rngs = [random.Random(f"{seed}-{n}") for n in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(rng,), name=f"load-{n}", daemon=True)
            for n, rng in enumerate(rngs)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new requests; returns when those in the air have ended."""
        self._give_up_at = time.monotonic() + self._patience_s
        self._stopped.set()
        for thread in self._threads:
            thread.join(self._patience_s + 4 * _ANSWER_S)
            if thread.is_alive():
                self._oracle.violated(f"{thread.name}: a request never ended")

    def _run(self, rng: random.Random) -> None:
        connection = Connection(self._url)
        while not self._stopped.is_set():
            request = make_request(self._oracle, rng, poison=self.poison)
            if request.key:
                self._send_until_answered(connection, request, rng)
            else:
                self._send(connection, request)
            self._stopped.wait(rng.uniform(*_PAUSE_S))
        connection.close()

    def _send(self, connection: Connection, request: Request) -> int:
        """Send once; the status, 0 when no answer came."""
        try:
            status, answer = connection.post(request)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            self._oracle.other(type(error).__name__)
            return 0
        if status // 100 == 2:
            self._oracle.accepted(request.records, answer, asked=request.asked)
        else:
            self._oracle.other(str(status))
            if status not in (*_RETRIED, 413):
                self._oracle.violated(f"unexpected answer {status}: {json.dumps(answer)[:300]}")
        return status

    def _send_until_answered(
        self, connection: Connection, request: Request, rng: random.Random
    ) -> None:
        pending = 0
        while True:
            status = self._send(connection, request)
            if status and status not in _RETRIED:
                break
            pending = pending + 1 if status == 409 else 0
            if self._stopped.is_set() and time.monotonic() > self._give_up_at:
                self._oracle.violated(
                    f"the key {request.key} had no 2xx {self._patience_s:g} s after healing; the "
                    f"last answer was {status or 'none'}"
                    + (f", {pending} times pending" if pending else "")
                )
                return
            time.sleep(rng.uniform(0.1, 0.4))
            self._oracle.resent(request.records)
        if status // 100 == 2 and rng.random() < 0.2:
            # The client never learned of the answer: the same again must store nothing more.
            self._oracle.resent(request.records)
            self._send(connection, request)


class Connection:
    """A connection that is opened again when the last one failed, or the server has moved."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._at = ""
        self._connection: http.client.HTTPConnection | None = None

    def post(self, request: Request) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", f"/logs?ack={request.ack}", request.body, request.headers)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        if self._at != self._url():
            self.close()
        if self._connection is None:
            self._at = self._url()
            parts = urlsplit(self._at)
            if not parts.port:
                raise ConnectionRefusedError("the server is not there")
            self._connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=_ANSWER_S
            )
        self._connection.request(method, target, body=body, headers=headers or {})
        response = self._connection.getresponse()
        text = response.read()
        status = response.status
        try:
            answer = json.loads(text)
        except ValueError:
            if status // 100 == 2:
                raise
            answer = {"text": text[:200].decode("latin-1")}
        return status, answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
