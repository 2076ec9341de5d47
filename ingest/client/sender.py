"""Owns: one blocking keep-alive connection, plain or TLS, for clients that send one at a time.

Runs on the caller's thread; no locks. An answer that comes before the body was sent (a cheap 429)
is read as an answer and not lost in the broken pipe.
"""

from __future__ import annotations

import socket
import ssl

from ingest.client.response import Response, ResponseError, ResponseParser, rest_of_head
from ingest.client.target import Target

_READ_SIZE = 65536


class NoAnswer(Exception):
    """The request may or may not have been acted upon; not, if it was never `connected`."""

    def __init__(self, reason: str, *, connected: bool) -> None:
        super().__init__(reason)
        self.connected = connected


class Sender:
    def __init__(self, target: Target, *, timeout_s: float) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._sock: socket.socket | None = None
        self._parser = ResponseParser()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def post(self, head: bytes, body: bytes, *, key: str = "") -> Response:
        """`head` ends where the Content-Length's number belongs."""
        if self._sock is not None and self._is_stale(self._sock):
            self.close()
        sock = self.connect()
        try:
            try:
                sock.sendall(b"%s%s%s" % (head, rest_of_head(len(body), key=key), body))
                sent = True
            except OSError:
                sent = False
            response = self._receive(sock)
        except (OSError, ResponseError) as error:
            self.close()
            raise NoAnswer(
                f"no answer from {self._target.url}: {_said(error)}", connected=True
            ) from None
        if not (sent and response.keep_alive):
            self.close()
        return response

    def connect(self) -> socket.socket:
        """The connection, made if there is none; raises NoAnswer if nobody is there."""
        try:
            return self._sock or self._connect()
        except OSError as error:
            raise NoAnswer(
                f"cannot connect to {self._target.url}: {_said(error)}", connected=False
            ) from None

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(
            (self._target.address, self._target.port), timeout=self._timeout_s
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._target.scheme == "https":
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=self._target.host)
        except BaseException:
            sock.close()
            raise
        self._sock, self._parser = sock, ResponseParser()
        return sock

    def _receive(self, sock: socket.socket) -> Response:
        while True:
            data = sock.recv(_READ_SIZE)
            response = self._parser.feed(data) if data else self._parser.feed_eof()
            if response is not None:
                return response
            if not data:
                raise ResponseError("the connection was closed")

    def _is_stale(self, sock: socket.socket) -> bool:
        """A server closes idle connections; sending into such a one would lose the answer."""
        sock.settimeout(0.0)
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.recv(1)  # TLS cannot peek; a byte that nobody asked for is stale as well
            else:
                sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            sock.settimeout(self._timeout_s)
            return False
        except OSError:
            pass
        return True


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
