"""A client that misbehaves on purpose: it sends exactly the bytes it is told to, when told to."""

from __future__ import annotations

import socket
from types import TracebackType
from urllib.parse import urlsplit

GENEROUS_S = 180.0


class RawClient:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), GENEROUS_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def post(self, path: str, *, length: int, body: bytes = b"", extra: bytes = b"") -> None:
        """The head of a POST that announces `length` bytes, and as much of them as `body`."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        self.send(head.encode() + b"Content-Type: application/json\r\n" + extra + b"\r\n" + body)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer; status 0 when the connection just ended."""
        try:
            line = self._file.readline()
        except ConnectionError:
            line = b""
        if not line:
            return 0, {}, b""
        status = int(line.split()[1])
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._file.readline(), 16):
                body += self._file.read(size)
                self._file.readline()
            self._file.readline()
        else:
            body = self._file.read(int(headers.get("content-length", "0")))
        return status, headers, body

    def ended(self) -> bool:
        """Wait until the server has closed the connection."""
        try:
            return self._file.read() == b""
        except ConnectionError:
            return True
