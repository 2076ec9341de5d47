"""Faults to order, under `/faults/`: what a service may do to its callers, each by its name.

Each is called with the request's handler and the query, on the handler's thread; what it leaves
open ends when the server stops.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler

MAX_BYTES = 64 * 1024 * 1024
_NO_LINGER = struct.pack("ii", 1, 0)

Query = Mapping[str, str]
Fault = Callable[[BaseHTTPRequestHandler, Query, threading.Event], None]


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection off with a RST."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    # Dropped and not shut down, which would send a FIN first.
    handler.rfile.close()
    handler.connection.close()


def raw(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Say this and hang up."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.sendall(data)


def head(*lines: str) -> bytes:
    return ("HTTP/1.1 " + "\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _hang(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """Say nothing; with `after=head` say the head first."""
    handler.close_connection = True
    if query.get("after") == "head":
        handler.connection.sendall(head("200 OK", "Content-Length: 10"))
    stopping.wait(3600)


def _drip(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """A byte of the body (or of a header, `of=head`) every `every` seconds, for ever."""
    handler.close_connection = True
    every_s = float(query.get("every", "0.02"))
    begun = b"HTTP/1.1 200 OK\r\nX-Slow: "
    if query.get("of") != "head":
        begun = head("200 OK", "Content-Type: text/plain", "Content-Length: 1000000")
    with contextlib.suppress(OSError):
        handler.connection.sendall(begun)
        while not stopping.wait(every_s):
            handler.connection.sendall(b"x")


def _reset(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """RST; with `after=head` in the middle of the answer."""
    if query.get("after") == "head":
        handler.connection.sendall(head("200 OK", "Content-Length: 10") + b"half")
    reset(handler)


def _close(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    raw(handler, b"")


def _garbage(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    raw(handler, bytes(range(256)) * 4)


def _endless_head(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100_000):
            handler.connection.sendall(b"X-More: " + b"x" * 1_000 + b"\r\n")


def _bad_json(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    body = query.get("body", '{"half": ').encode()
    answer(handler, 200, body, {"Content-Type": "application/json"})


def _short(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """Less than was promised."""
    raw(handler, head("200 OK", "Content-Length: 100") + b"only this")


def _large(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    size = min(int(query.get("bytes", "1000000")), MAX_BYTES)
    with contextlib.suppress(OSError):
        answer(handler, 200, b"x" * size, {"Content-Type": "text/plain"})


def _bomb(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """Little that becomes much when it is decompressed."""
    size = min(int(query.get("bytes", "10000000")), MAX_BYTES)
    sent = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    answer(handler, 200, gzip.compress(b"\0" * size), sent)


def _status(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    sent = {"Content-Type": "text/plain"}
    if "retry_after" in query:
        sent["Retry-After"] = query["retry_after"]
    answer(handler, int(query.get("code", "500")), query.get("text", "").encode(), sent)


def _redirect(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    answer(handler, int(query.get("code", "302")), b"", {"Location": query.get("to", "/")})


def _circle(handler: BaseHTTPRequestHandler, query: Query, stopping: threading.Event) -> None:
    """A redirect to where it was asked."""
    answer(handler, 307, b"", {"Location": handler.path})


def answer(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    """A whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value.replace("\r", " ").replace("\n", " "))
    if status >= 200 and status not in (204, 304):
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD" and status not in (204, 304):
        handler.wfile.write(body)
    handler.wfile.flush()


FAULTS: Mapping[str, Fault] = {
    "hang": _hang,
    "drip": _drip,
    "reset": _reset,
    "close": _close,
    "garbage": _garbage,
    "endless-head": _endless_head,
    "bad-json": _bad_json,
    "short": _short,
    "large": _large,
    "bomb": _bomb,
    "status": _status,
    "redirect": _redirect,
    "circle": _circle,
}
