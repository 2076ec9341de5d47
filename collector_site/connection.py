"""One client connection of the server: its head is awaited without a thread, its reads can be cut.

The worker's main thread creates connections, collects heads and decides cuts; a request thread
reads and writes while it answers. What both look at (`reading`, `received`, `cut_at`) are single
attributes, each written by one side and read by the other, so no lock is needed: a cut decided on
a stale value hits a connection that is over its deadline anyway.
"""

from __future__ import annotations

import enum
import socket
import struct
import time
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.workers.gthread import TConn

# A head is not collected beyond this. It must not go to a thread either, whose parser would wait
# for its end.
MAX_HEAD_BYTES = 64 * 1024
# An upload that keeps this rate is slow but honest: each byte received extends its deadline.
MIN_RATE_BYTES_S = 8 * 1024


class Head(enum.Enum):
    """What has arrived of a request's head."""

    PARTIAL = "not all of it yet"
    WHOLE = "a thread can parse it without waiting"
    TOO_LARGE = "more than a head may have"
    OVER = "nothing more will come"


class WatchedSocket:
    """The socket as the request parser reads it: says when a thread waits in it, and counts."""

    def __init__(self, connection: Connection, sock: socket.socket) -> None:
        self._connection = connection
        self._sock = sock

    def recv(self, size: int) -> bytes:
        connection = self._connection
        connection.reading = True
        try:
            data = self._sock.recv(size)
        finally:
            connection.reading = False
        if not data and connection.cut_at:
            raise TimeoutError("the request did not arrive before the read deadline")
        connection.received += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = bytearray()
        self.began = time.monotonic()  # when this request's first byte was awaited or came
        self.received = 0
        self.reading = False
        self.cut_at = 0.0
        self.drain_left = 0
        self.data_ready = True  # a thread gets the connection only once a whole head is there

    def limit_sends(self, seconds: float) -> None:
        """Let a send that makes no progress fail: a client that reads nothing frees its thread."""
        timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def init(self) -> None:
        fresh = not self.initialized
        super().init()
        if fresh:
            self.parser.unreader.sock = WatchedSocket(self, self.sock)
        if self.head:
            self.parser.unreader.unread(bytes(self.head))
            self.head.clear()

    def next_request(self, now: float) -> None:
        self.began, self.received = now, 0

    def read_head(self) -> Head:
        """Take what has arrived."""
        try:
            data = self.sock.recv(MAX_HEAD_BYTES)
        except (BlockingIOError, InterruptedError):
            return Head.PARTIAL
        except OSError:
            return Head.OVER
        if not data:
            return Head.OVER
        if not self.head:
            self.next_request(time.monotonic())
        return self._add_to_head(data)

    def pipelined_head(self) -> Head | None:
        """Take what came behind the answered request; None when that is nothing.

        Those bytes no longer make the socket readable.
        """
        data = self.parser.unreader.take_buffered()
        if not data:
            return None
        self.next_request(time.monotonic())
        return self._add_to_head(data)

    def _add_to_head(self, data: bytes) -> Head:
        self.head += data
        self.received += len(data)
        # A terminator may straddle two reads.
        tail = self.head[-(len(data) + 3) :]
        if b"\r\n\r\n" in tail or b"\n\n" in tail:
            return Head.WHOLE
        return Head.TOO_LARGE if len(self.head) >= MAX_HEAD_BYTES else Head.PARTIAL

    def overdue(self, now: float, read_deadline_s: float) -> bool:
        """Whether a thread has waited too long for this client's bytes."""
        allowed = read_deadline_s + self.received / MIN_RATE_BYTES_S
        return self.reading and now - self.began > allowed

    def cut(self, now: float) -> None:
        """End the reading side: the waiting thread wakes, and can still answer 408."""
        self.cut_at = now
        self._shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End both sides: whatever a thread waits for on this socket, it waits no more."""
        self.cut_at = self.cut_at or time.monotonic()
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:
            pass  # it is gone already

    def say(self, answer: bytes) -> None:
        """Send without waiting: an answer this short fits into the socket's buffer."""
        try:
            self.sock.send(answer)
        except OSError:
            pass  # nobody is left to tell

    def unread_body(self) -> int | None:
        """How many bytes of the answered request's body are still to come; None if unknowable.

        Leaves the parser where the next request starts, once those bytes have been thrown away.
        """
        message = self.parser.mesg
        body = getattr(message, "body", None)
        if body is None:
            return 0
        if getattr(body, "failed", False):
            return None
        reader = body.reader
        if not isinstance(reader, LengthReader):
            # Chunked: it ended when its parser is used up; elsewhere the end cannot be told
            # without reading, which would take a thread.
            return 0 if getattr(reader, "parser", True) is None else None
        left: int = reader.length
        if left <= 0:
            return 0
        held = self.parser.unreader.take_buffered()
        if len(held) > left:
            self.parser.unreader.unread(held[left:])
        reader.length = 0
        return max(0, left - len(held))
