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
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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


def self_signed(directory: Path) -> tuple[str, str]:
    """A certificate and its key, as files; on a curve, as most servers have today."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .sign(key, hashes.SHA256())
    )
    files = directory / "bench.crt", directory / "bench.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(files[0]), str(files[1])


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
