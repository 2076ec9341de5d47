"""A real HTTP server on port 0 that keeps what it was sent and answers as a test tells it to.

One thread accepts, one thread a connection reads and answers. `_lock` guards `requests`; the
test's `answer` function is called under it, so that scripts need no locks of their own.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Received:
    number: int  # from 0, in order of arrival
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def lines(self) -> list[bytes]:
        return self.body.split(b"\n")

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.lines if line]


@dataclass
class Answer:
    status: int = 202
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False
    chunked: bool = False
    raw: bytes | None = None  # sent instead of all of the above


@dataclass
class Drop:
    """Cut the connection without an answer; `reset` sends RST instead of FIN."""

    reset: bool = False


class Silence:
    """Never answer; the connection stays open until the client or the test ends."""


Script = Callable[[Received], "Answer | Drop | Silence"]


def accept(received: Received) -> Answer:
    count = len([line for line in received.lines if line])
    return accepted(count)


def accepted(count: int, *, rejected: dict[int, str] | None = None, ack: str = "memory") -> Answer:
    errors = [{"index": i, "code": "bad", "detail": why} for i, why in (rejected or {}).items()]
    body = {
        "accepted": count - len(errors),
        "rejected": len(errors),
        "errors": errors,
        "ack": ack,
        "request_id": "r",
    }
    return Answer(body=json.dumps(body).encode())


class RecordingServer:
    def __init__(self, answer: Script = accept, *, refuse_early: Answer | None = None) -> None:
        self.answer = answer
        # Answered after the head, before the body is read, and then closed: a cheap 429.
        self.refuse_early = refuse_early
        self.requests: list[Received] = []
        self.gone = threading.Event()  # set when the test is over
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RecordingServer:
        thread = threading.Thread(target=self._accept, name="recording-accept", daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(self, *exc: object) -> None:
        self.gone.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), thread.name

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._connections)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number = len(self._connections)
                self._connections.append(connection)
            thread = threading.Thread(
                target=self._serve,
                args=(connection, number),
                name=f"recording-{number}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while self._exchange(connection, stream, number):
                    pass
        except OSError:
            pass  # the client went away, or the test ended

    def _exchange(self, connection: socket.socket, stream, number: int) -> bool:
        first = stream.readline()
        if not first:
            return False
        method, path, _ = first.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if self.refuse_early is not None:
            with self._lock:
                self.requests.append(
                    Received(len(self.requests), method, path, headers, b"", number)
                )
                answer, self.refuse_early = self.refuse_early, None
            self._send(connection, answer)
            if not answer.close:
                connection.recv(1, socket.MSG_PEEK)
                self.gone.wait(30)  # neither read nor closed: the client must let go by itself
            return False
        body = stream.read(int(headers.get("content-length", "0")))
        with self._lock:
            received = Received(len(self.requests), method, path, headers, body, number)
            self.requests.append(received)
            reply = self.answer(received)
        if isinstance(reply, Silence):
            stream.read(1)
            return False
        if isinstance(reply, Drop):
            if reply.reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        self._send(connection, reply)
        return not reply.close

    @staticmethod
    def _send(connection: socket.socket, answer: Answer) -> None:
        if answer.raw is not None:
            connection.sendall(answer.raw)
            return
        headers = {"Content-Type": "application/json", **answer.headers}
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(piece), piece)
                for piece in (answer.body[:3], answer.body[3:])
                if piece
            )
            body += b"0\r\n\r\n"
        else:
            headers["Content-Length"] = str(len(answer.body))
            body = answer.body
        if answer.close:
            headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(
            f"HTTP/1.1 {answer.status} Status\r\n{lines}\r\n".encode("latin-1") + body
        )
