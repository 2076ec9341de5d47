"""A TCP listener that behaves as told, also badly; with TLS when given a context.

One thread accepts, one serves each connection.  `_lock` guards the open sockets and the counts;
`seen` is set once a connection has got as far as its behaviour.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

Behaviour: TypeAlias = "Callable[[socket.socket, Listener], None]"


class Listener:
    def __init__(
        self,
        behaviour: Behaviour,
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        before_tls: Behaviour | None = None,
    ) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._before_tls = before_tls
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, 0))
        self._socket.listen(128)
        self.address = address
        self.port: int = self._socket.getsockname()[1]
        self.seen = threading.Event()
        self.released = threading.Event()
        self.received: list[bytes] = []
        self.accepted = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False

    @property
    def where(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self.released.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
        with self._lock:
            left = list(self._open)
        for sock in left:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(30)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="listener", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        plain = sock
        try:
            if self._before_tls is not None:
                self._before_tls(sock, self)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(sock)
            self._behaviour(sock, self)
        except OSError:  # the probe has gone, or refuses the certificate
            pass
        finally:
            self.seen.set()
            with self._lock:
                self._open.discard(sock)
            sock.close()


# Behaviours


def answers(reply: bytes, *, after: bytes = b"") -> Behaviour:
    """Sends `reply` once what came contains `after`, then waits for the probe to go."""

    def behave(sock: socket.socket, listener: Listener) -> None:
        got = b""
        while after not in got:
            data = sock.recv(4096)
            if not data:
                return
            got += data
        listener.received.append(got)
        sock.sendall(reply)
        listener.seen.set()
        while sock.recv(4096):
            pass

    return behave


def silent(sock: socket.socket, listener: Listener) -> None:
    """Takes everything, says nothing."""
    listener.seen.set()
    while sock.recv(4096):
        pass


def closes(sock: socket.socket, listener: Listener) -> None:
    """Closes at once."""


def resets(sock: socket.socket, listener: Listener) -> None:
    """Resets the connection at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets_after(reply: bytes, *, reads: int = 1) -> Behaviour:
    """Reads a little, sends `reply`, then resets the connection."""

    def behave(sock: socket.socket, listener: Listener) -> None:
        if reads:
            sock.recv(reads)
        if reply:
            sock.sendall(reply)
        resets(sock, listener)

    return behave


def endless(sock: socket.socket, listener: Listener) -> None:
    """Sends without end."""
    listener.seen.set()
    while True:
        sock.sendall(b"x" * 65_536)


def closed_port() -> int:
    """A port of the loopback on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
