"""A web server that records what is posted to it, and answers as a test has laid out.

Plain sockets on port 0: an answer is raw bytes, `CLOSE` (hang up without a word), `HANG` (say
nothing until the test ends), or `DRIP` (a byte at a time, for ever).  `_lock` guards the lists.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass

CLOSE, HANG, DRIP = "close", "hang", "drip"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nthanks"


def answer(status: int, text: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Some"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    body = text.encode()
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Posted:
    line: str
    headers: dict[str, str]
    body: bytes


class WebServer:
    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._answers: list[bytes | str] = []
        self.posted: list[Posted] = []
        self.arrived = threading.Semaphore(0)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/hook?key=s3cret"

    def will(self, *answers: bytes | str) -> None:
        with self._lock:
            self._answers += answers

    def forget_answers(self) -> None:
        """Answer OK from now on."""
        with self._lock:
            self._answers.clear()

    def stop(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(10)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        with contextlib.suppress(OSError):
            plain.settimeout(30)
            if self._context is not None:
                connection = self._context.wrap_socket(plain, server_side=True)
            self._answer(connection)
        with contextlib.suppress(OSError):
            connection.close()
        plain.close()

    def _answer(self, connection: socket.socket) -> None:
        posted = _read(connection)
        if posted is None:
            return
        with self._lock:
            self.posted.append(posted)
            said = self._answers.pop(0) if self._answers else OK
        self.arrived.release()
        if said == HANG:
            self._ending.wait(60)
        elif said == DRIP:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._ending.wait(0.01):
                connection.sendall(b"x")
        elif isinstance(said, bytes):
            connection.sendall(said)


def _read(connection: socket.socket) -> Posted | None:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)
    }
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Posted(line, headers, body)
