"""Owns: one keep-alive connection that never blocks the generator's thread.

Runs on the generator's thread; no locks. The generator watches the socket and calls in.
"""

from __future__ import annotations

import errno
import os
import socket

from ingest.client.response import Response, ResponseParser
from ingest.client.target import Target

_READ_SIZE = 65536


class ConnectionLost(Exception):
    """No answer will come. `sent_all` tells whether the server may have acted on the request."""

    def __init__(self, reason: str, *, sent_all: bool, connected: bool) -> None:
        super().__init__(reason)
        self.sent_all = sent_all
        self.connected = connected


class Connection:
    __slots__ = ("_out", "_parser", "_target", "connected", "sock")

    def __init__(self, target: Target) -> None:
        self._target = target
        self._out: list[memoryview] = []
        self._parser = ResponseParser()
        self.connected = False
        self.sock = socket.socket(target.family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        code = self.sock.connect_ex((self._target.address, self._target.port))
        if code == 0:
            self.connected = True
        elif code not in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
            raise ConnectionLost(
                f"cannot connect: {errno_text(code)}", sent_all=False, connected=False
            )

    def close(self) -> None:
        self.sock.close()

    @property
    def wants_write(self) -> bool:
        return bool(self._out) or not self.connected

    def is_stale(self) -> bool:
        """A server closes idle connections; sending into such a one would lose the answer."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True  # closed, or bytes that nobody asked for: neither is fit for a request

    def send(self, *pieces: bytes) -> None:
        self._out = [memoryview(piece) for piece in pieces if piece]
        if self.connected:
            self.flush()

    def flush(self) -> None:
        """Write what the socket takes; the rest when it is writable again."""
        if not self.connected:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise ConnectionLost(
                    f"cannot connect: {errno_text(code)}", sent_all=False, connected=False
                )
            self.connected = True
        try:
            while self._out:
                sent = self.sock.sendmsg(self._out)
                while self._out and sent >= len(self._out[0]):
                    sent -= len(self._out.pop(0))
                if sent:
                    self._out[0] = self._out[0][sent:]
        except BlockingIOError:
            return
        except OSError:
            # A server that refuses before it has read the body answers and closes: the answer may
            # be waiting to be read, and reading tells. `_out` still says that not all was sent.
            return

    def receive(self) -> Response | None:
        """The answer when it is whole. One that comes before all was sent closes the connection."""
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost(str(error)) from None
        response = self._parser.feed(data) if data else self._parser.feed_eof()
        if response is None and not data:
            raise self._lost("the server closed the connection without an answer")
        if response is not None and self._out:
            response.keep_alive = False
        return response

    def _lost(self, reason: str) -> ConnectionLost:
        return ConnectionLost(reason, sent_all=not self._out, connected=self.connected)


def errno_text(code: int) -> str:
    return os.strerror(code)
