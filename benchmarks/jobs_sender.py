"""A process that posts one body again and again, and the parent's way of starting it.

`python -m benchmarks.jobs_sender '{"url": …, "path": …, "requests": …, "clients": …}'` keeps a
connection a client and says as little as HTTP allows, so that the server is what is measured.
Prints one JSON object.  A thread each client; they share nothing.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import ROOT

BODY = b'{"type": "ekyc-verification", "payload": {"user_id": 456}}'
ACCEPTED = (b"201", b"202")
TIMEOUT_S = 60.0


def send(**options: Any) -> dict[str, float]:
    """What a sender of its own says."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.jobs_sender", json.dumps(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the sender failed:\n{done.stderr[-3000:]}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


class _Client:
    def __init__(self, url: str, path: str, requests: int, first: int) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\nX-Correlation-ID: job-"
        ).encode()
        self._numbers = range(first, first + requests)
        self.error = ""

    def run(self) -> None:
        try:
            for number in self._numbers:
                self._socket.sendall(self._head + b"%d\r\n\r\n" % number + BODY)
                self._answer()
        except (OSError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._socket.close()

    def _answer(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        if head[9:12] not in ACCEPTED:
            raise ValueError(f"answered {data[:500]!r}")
        lower = head.lower()
        left = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(body)
        while left > 0:
            left -= len(self._more())

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ValueError("the server closed the connection")
        return data


def main(url: str, path: str, requests: int, clients: int) -> None:
    share = requests // clients
    made = [_Client(url, path, share, n * share) for n in range(clients)]
    threads = [threading.Thread(target=client.run) for client in made]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    errors = [client.error for client in made if client.error]
    if errors:
        raise SystemExit(f"{len(errors)} clients failed: {errors[0]}")
    print(json.dumps({"rate": share * clients / took, "sent": share * clients}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
