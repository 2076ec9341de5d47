"""The server's side of WebSocket, as far as tests need it, with room for misbehaviour."""

from __future__ import annotations

import hashlib
import socket
from base64 import b64encode

from tests.healthmon.probes.listeners.tcp import Behaviour, Listener

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    size = len(payload)
    head = bytes([(0x80 if last else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 65_536:
        return head + b"\x7e" + size.to_bytes(2) + payload
    return head + b"\x7f" + size.to_bytes(8) + payload


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """One frame from a client; fails unless it is masked, as a client's must be."""
    first, second = read_exactly(sock, 2)
    assert second & 0x80
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(read_exactly(sock, 2 if size == 126 else 8))
    key = read_exactly(sock, 4)
    masked = read_exactly(sock, size)
    return first & 0x0F, bytes(byte ^ key[at % 4] for at, byte in enumerate(masked))


def accepting(
    frames: bytes = b"",
    *,
    headers: bytes = b"",
    accept: bytes | None = None,
    status: bytes = b"101 Switching Protocols",
    upgrade: bytes = b"websocket",
) -> Behaviour:
    """Upgrades with these particulars, sends `frames` at once, keeps what comes then."""

    def behave(sock: socket.socket, listener: Listener) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            more = sock.recv(4096)
            if not more:
                return
            request += more
        listener.received.append(request)
        key = next(
            line.partition(b": ")[2]
            for line in request.split(b"\r\n")
            if line.startswith(b"Sec-WebSocket-Key")
        )
        digest = accept or b64encode(hashlib.sha1(key + GUID).digest())
        sock.sendall(
            b"HTTP/1.1 " + status + b"\r\nUpgrade: " + upgrade + b"\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + digest + b"\r\n" + headers + b"\r\n" + frames
        )
        while True:
            opcode, payload = read_frame(sock)
            listener.received.append(bytes([opcode]) + payload)
            if opcode == 8:
                return

    return behave


def upgrading(sock: socket.socket, listener: Listener) -> None:
    """A good server: greets, asks with a ping, answers "ping" with "pong" in two fragments."""
    sent = frame(1, b"hello") + frame(9, b"there?") + frame(1, b"po", last=False)
    accepting(sent + frame(10, b"") + frame(0, b"ng"))(sock, listener)
