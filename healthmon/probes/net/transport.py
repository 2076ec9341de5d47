"""A lean asyncio transport over one connected socket, in the clear or with TLS.

Why not the event loop's own: a probe makes one connection, a few writes and a few reads, so what a
connection costs to set up decides.  Measured per probe on loopback (connect, one small exchange,
close, task and deadline; stock asyncio on CPython 3.11):

    loop.create_connection(host literal)                      138-148 us
    sock_connect + create_connection(sock=)                   130-137 us
    connect by hand + create_connection(sock=)                116-121 us
    connect by hand + this transport                           87-110 us
    all of `dial` (also looks the name up, judges, times)     118-123 us
    with TLS: create_connection(sock=, ssl=)                       750 us
    with TLS: this transport over an SSLSocket                 645-690 us
    with TLS: this transport over memory BIOs                  600-610 us   (418 of it in OpenSSL)

Only public calls of the loop are used (add_reader, add_writer), so that uvloop serves as well.
Runs on the event loop of its probe alone; no locks.  Written for short exchanges: it does not call
`pause_writing`, its users write little.  `abort` frees the socket at once, in every state.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

READ_BYTES = 64 * 1024
DISCARDED_READS = 16


class Wire(asyncio.Transport):
    """A connected socket in the clear."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._unsent = bytearray()
        self._reading = False
        self._closing = False  # no more reads or writes are taken
        self._lost = False  # the socket is closed
        self._ended = False  # the peer has sent its last byte
        self._refused: OSError | None = None  # the peer takes no more; what it sent is still read

    def begin(self) -> None:
        """Tell the protocol that it is connected, then read."""
        self._protocol.connection_made(self)
        self.resume_reading()

    # What a protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not (self._closing or self._refused) and data:
            self._send(data)

    def close(self) -> None:
        """Send what is left, then close."""
        if self._closing:
            return
        self._closing = True
        self.pause_reading()
        if not self._unsent:
            self._finish()

    def abort(self) -> None:
        self._closing = True
        self._drop(None)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not (self._reading or self._closing or self._ended):
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.Protocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._sock
        if name == "peername" and not self._lost:
            return self._sock.getpeername()
        if name == "sockname" and not self._lost:
            return self._sock.getsockname()
        return default

    # What the loop calls

    def _readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        self._received(data)

    def _received(self, data: bytes) -> None:
        if data:
            self._deliver(data)
        else:
            self._end()

    def _deliver(self, data: bytes) -> None:
        try:
            self._protocol.data_received(data)
        except Exception as error:  # the protocol's fault ends its own connection, not the loop
            self._fail(error)

    def _end(self) -> None:
        """The peer has closed its side."""
        self._ended = True
        if isinstance(self._refused, ConnectionResetError):
            # A reset that came upon a write: what was read may be cut off.
            self._fail(self._refused)
            return
        self.pause_reading()
        try:
            keep = self._protocol.eof_received()
        except Exception as error:
            self._fail(error)
            return
        if not keep:
            self.close()

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._cannot_send(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._writable)
        self._unsent += data

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._loop.remove_writer(self._fd)
            self._unsent.clear()
            self._cannot_send(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._finish()

    def _cannot_send(self, error: OSError) -> None:
        """A peer that has answered already need not read the rest of the question."""
        gone = isinstance(error, BrokenPipeError | ConnectionResetError)
        if gone and not (self._closing or self._ended):
            self._refused = error
        else:
            self._fail(error)

    # The end

    def _finish(self) -> None:
        """Close without a reset: what lies unread in a closed socket would undo what was sent."""
        try:
            for _ in range(DISCARDED_READS):
                if not self._sock.recv(READ_BYTES):
                    break
        except OSError:
            pass
        self._drop(None)

    def _fail(self, error: Exception) -> None:
        self._closing = True
        self._drop(error)

    def _drop(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self.pause_reading()
        if self._unsent:
            self._loop.remove_writer(self._fd)
            self._unsent.clear()
        self._sock.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


class TlsWire(Wire):
    """The same with TLS.  `handshake` is awaited before the protocol hears of the connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.Protocol,
        *,
        context: ssl.SSLContext,
        server_name: str,
    ) -> None:
        super().__init__(loop, sock, protocol)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name or None
        )
        self._shaken: asyncio.Future[None] | None = None

    async def handshake(self) -> None:
        """Raises what ended it: ssl.SSLError, OSError.  The caller aborts, also when cancelled."""
        self._shaken = shaken = self._loop.create_future()
        self.resume_reading()
        self._shake()
        await shaken
        self._shaken = None

    def resume_reading(self) -> None:
        if not self._reading:
            super().resume_reading()
            if self._shaken is None and (self._incoming.pending or self._tls.pending()):
                # What came together with the last of the handshake, or before a pause.
                self._loop.call_soon(self._decrypt)

    def close(self) -> None:
        if not self._closing and self._shaken is None:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the peer's half of the goodbye is not waited for
            self._flush()
        super().close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._refused or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return super().get_extra_info(name, default)

    def _received(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._ended = True
            self._incoming.write_eof()
        if self._shaken is not None:
            self._shake()
        else:
            self._decrypt()

    def _shake(self) -> None:
        shaken = self._shaken
        assert shaken is not None
        if shaken.done():
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLError, OSError) as error:
            self._flush()  # the alert that tells the peer why
            if not shaken.done():
                shaken.set_exception(error)
        else:
            self._flush()
            if not shaken.done():
                self.pause_reading()
                shaken.set_result(None)

    def _decrypt(self) -> None:
        while self._reading and not self._closing:
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                self._flush()
                return
            except ssl.SSLEOFError:
                data = b""  # closed without a goodbye, as many servers do
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not data:
                self._end()
                return
            self._deliver(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            unsent = self._outgoing.read()
            if not (self._lost or self._refused):
                self._send(unsent)

    def _drop(self, error: Exception | None) -> None:
        shaken = self._shaken
        if shaken is None:
            super()._drop(error)
        elif not self._lost:
            # The protocol has not heard of this connection; whoever awaits the handshake has.
            self._shaken = None
            self._protocol = _NOBODY
            super()._drop(error)
            if not shaken.done():
                shaken.set_exception(error or ConnectionAbortedError("the connection was closed"))
                shaken.exception()  # read here too: nobody may be left to await it


_NOBODY = asyncio.Protocol()
