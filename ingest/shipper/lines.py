"""Owns: cutting bytes into lines without holding more than one line's limit of them.

Runs on the shipper's thread; no locks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    data: bytes  # without its line break
    end: int  # offset in the file after the line and its break
    cut: int = 0  # bytes that were left out because the line was too long


class LineCutter:
    """Feed it what the file holds from `offset` on; it answers whole lines."""

    def __init__(self, *, offset: int, max_line_bytes: int) -> None:
        self.offset = offset  # of the first byte not yet answered as part of a line
        self._max = max_line_bytes
        self._partial = bytearray()
        self._cut = 0

    @property
    def read_to(self) -> int:
        return self.offset + len(self._partial) + self._cut

    @property
    def unfinished(self) -> bool:
        return self.read_to > self.offset

    def feed(self, chunk: bytes) -> list[Line]:
        lines = []
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            self._keep(piece)
            lines.append(self._finish(extra=1))
        self._keep(pieces[-1])
        return lines

    def finish(self) -> Line:
        """The last line of a file that will not grow, though it has no line break."""
        return self._finish(extra=0)

    def _keep(self, piece: bytes) -> None:
        room = self._max - len(self._partial)
        self._partial += piece[:room]
        self._cut += max(len(piece) - room, 0)

    def _finish(self, *, extra: int) -> Line:
        end = self.read_to + extra
        line = Line(bytes(self._partial), end, self._cut)
        self.offset = end
        self._partial.clear()
        self._cut = 0
        return line


def as_text(line: Line) -> bytes:
    """UTF-8 whatever the file holds: bytes that are not UTF-8 become \\xNN, to be read by eye."""
    data = line.data.removesuffix(b"\r") if not line.cut else line.data
    if b"\r" in data:
        data = data.replace(b"\r", b"\\r")  # a lone CR would be taken for a line's end
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "backslashreplace").encode()
    if line.cut:
        data += b" [cut by ship: %d bytes more]" % line.cut
    return data


def as_ndjson(line: Line) -> bytes:
    """The line as it is; what was cut is no JSON any more, so its beginning becomes a message."""
    if not line.cut:
        return line.data.removesuffix(b"\r")
    message = line.data.decode("utf-8", "backslashreplace")
    return json.dumps({"message": message, "cut_by_ship_bytes": line.cut}).encode()
