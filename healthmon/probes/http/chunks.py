"""The chunked transfer coding, taken off as the bytes come; extensions and trailers are skipped.

Pure: no I/O.  One object serves one answer.
"""

from __future__ import annotations

import re

from healthmon.probes.http.errors import AnswerError

MAX_LINE_BYTES = 4096
# Size lines, extensions and trailers of one answer beyond what sizes need.
MAX_OVERHEAD_BYTES = 64 * 1024
_NEEDED_BYTES = 20

_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)


class Chunks:
    """`feed` returns the body's bytes among those that came; `complete` after the last trailer.

    It stops at more than `room` bytes, so that nothing is judged which is not read anyhow.
    """

    __slots__ = ("_left", "_line", "_overhead", "_state", "complete")

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0
        self._overhead = 0
        self._state = "size"
        self.complete = False

    def feed(self, data: bytes, room: int) -> bytes:
        """Raises AnswerError when it is not chunked coding."""
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end and room >= 0 and not self.complete:
            if self._state == "data":
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                room -= len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = "after data"
                continue
            newline = data.find(b"\n", at)
            stop = end if newline < 0 else newline
            self._line += data[at:stop]
            if len(self._line) > MAX_LINE_BYTES:
                raise AnswerError(f"a chunk of the body has a line over {MAX_LINE_BYTES} bytes")
            if self._state == "after data" and bytes(self._line) not in (b"", b"\r"):
                raise AnswerError("a chunk of the body is longer than its size says")
            at = stop + 1
            if newline >= 0:
                line = bytes(self._line).removesuffix(b"\r")
                self._line.clear()
                self._take_line(line)
        return b"".join(out)

    def _take_line(self, line: bytes) -> None:
        self._overhead += max(len(line) - _NEEDED_BYTES, 0) + (self._state == "trailer")
        if self._overhead > MAX_OVERHEAD_BYTES:
            raise AnswerError("the chunks of the body carry more extensions than body")
        if self._state == "size":
            match = _SIZE.fullmatch(line)
            if match is None:
                raise AnswerError("the body is said to be chunked, but has no chunk size")
            self._left = int(match[1], 16)
            self._state = "data" if self._left else "trailer"
        elif self._state == "after data":
            self._state = "size"
        elif not line:
            self.complete = True
