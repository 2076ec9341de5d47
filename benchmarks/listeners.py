"""Owns: what is probed in benchmarks: listeners on many loopback addresses, in own processes.

    python -m benchmarks.listeners PORT answer|slow|hang [--tls CERT KEY]

`answer` answers at once and closes, `slow` after three seconds, `hang` never.  Binds every
loopback address (0.0.0.0), so that 127.0.a.b are as many hosts.  Ends by itself after ten minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.load import ROOT

BODY = b'{"status":"ok","checks":[{"name":"db","ok":true}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
    b"Vary: Accept-Encoding\r\nX-Request-ID: 0123456789abcdef\r\nConnection: close\r\n\r\n"
) % len(BODY) + BODY
SLOW_S = 3.0
LIFE_S = 600
PROCESSES = 2


class _Answering(asyncio.Protocol):
    """Answers once, after `delay_s`; None is never."""

    delay_s: float | None = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.delay_s is None:
            return
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)
            self.transport.close()


async def _serve(port: int, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(
        _Answering, "0.0.0.0", port, ssl=context, backlog=4096, reuse_port=True
    )
    print("ready", flush=True)
    await asyncio.Event().wait()


@contextmanager
def listeners(manner: str = "answer", *, tls: tuple[str, str] | None = None) -> Iterator[int]:
    """Processes that listen in that manner; yields their port."""
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.listeners", str(port), manner, *(tls or ())]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(PROCESSES)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield port
    finally:
        for child in children:
            child.terminate()
            child.wait()


def main(port: int, manner: str, *tls: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.alarm(LIFE_S)
    _Answering.delay_s = {"answer": 0.0, "slow": SLOW_S, "hang": None}[manner]
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    asyncio.run(_serve(port, context))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *sys.argv[3:])
