"""Servers that answer byte for byte what a test says, on real sockets, and keep what they got."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[["Client"], Awaitable[None]]


class Client:
    """One connection as a script sees it."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The request's head, and its body where it has a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = b""
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                body = await self.reader.readexactly(int(line.partition(b":")[2]))
        self.server.requests.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_bytewise(self, data: bytes) -> None:
        """Each byte in a segment of its own."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return when the probe has closed its side."""
        try:
            while await self.reader.read(65_536):
                pass
        except ConnectionError:
            pass
        self.server.seen_gone.set()


class Server:
    def __init__(self, port: int, host: str, tls: bool) -> None:
        self.port = port
        self.host = host
        self.tls = tls
        self.requests: list[bytes] = []
        self.connections = 0
        self.seen_gone = asyncio.Event()

    def url(self, path: str = "/", *, scheme: str = "http", host: str = "") -> str:
        name = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{scheme}{'s' if self.tls else ''}://{name}:{self.port}{path}"


@asynccontextmanager
async def serving(
    script: Script | bytes, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A listener on a free port; `script` is run for each connection, or bytes answer a request."""
    conversations: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        task.add_done_callback(conversations.discard)
        server.connections += 1
        client = Client(server, reader, writer)
        try:
            if isinstance(script, bytes):
                await client.request()
                await client.send(script)
            else:
                await script(client)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()

    listener = await asyncio.start_server(run, host, 0, ssl=context)
    server = Server(listener.sockets[0].getsockname()[1], host, context is not None)
    try:
        yield server
    finally:
        listener.close()
        for task in list(conversations):
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await listener.wait_closed()


def answer(
    body: bytes = b"", *, status: str = "200 OK", headers: str = "", length: bool = True
) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = f"Content-Length: {len(body)}\r\n" if length else ""
    return f"HTTP/1.1 {status}\r\n{lines}{headers}\r\n".encode() + body
