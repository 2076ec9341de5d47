"""Reading one HTTP/1.x answer: bytes go in as they come, head and body come out, all bounded.

Pure: no I/O and no clock; one reader serves one exchange, on the checker's event loop.  What comes
out never depends on where the bytes were cut.

By hand rather than with httptools (llhttp): for a usual answer of ten headers both cost 2 to 3 us
(of a probe's 100), llhttp is not told that a HEAD is answered without a body nor where a connection
ended, has no bound for the head, and its errors do not say what an operator could act upon.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from healthmon.probes.http.chunks import Chunks
from healthmon.probes.http.errors import AnswerError

MAX_HEAD_BYTES = 64 * 1024
MAX_NAME_CHARS = 200
MAX_INTERIM = 16  # 1xx answers before the one that counts

_STATUS_LINE = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: [^\x00]*)?", re.DOTALL)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


class _Framing(IntEnum):
    """How the end of the body is known."""

    HEAD, NONE, LENGTH, CHUNKED, CLOSE = range(5)


@lru_cache(maxsize=2048)
def header_name(name: str) -> str:
    """The name in lower case; the same few are asked for all the time.  Raises AnswerError."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise AnswerError("the head of the answer has a line that is not a header")
    return name.lower()


class AnswerReader:
    """`bodiless` when the answer to a HEAD is read; at most `max_body_bytes` of a body are kept.

    `cut` tells that the body was longer than that.  `complete` once nothing more is to be read.
    `rest` is what came after an answer without a body: after an upgrade, the other protocol.
    """

    __slots__ = (
        "_bodiless",
        "_chunks",
        "_framing",
        "_head",
        "_interim",
        "_left",
        "body",
        "complete",
        "cut",
        "headers",
        "max_body_bytes",
        "promised",
        "rest",
        "status",
    )

    def __init__(self, *, max_body_bytes: int, bodiless: bool = False) -> None:
        self.max_body_bytes = max_body_bytes
        self._bodiless = bodiless
        self._framing = _Framing.HEAD
        self._head = bytearray()
        self._interim = 0
        self._left = 0
        self._chunks: Chunks | None = None
        self.promised = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False
        self.cut = False
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Take what came; True once the answer is complete.  Raises AnswerError."""
        if self._framing is _Framing.HEAD:
            rest = self._take_head(data)
            if rest is None:
                return False
            data = rest
        if self.complete:
            self.rest = data
        elif data:
            self._take_body(data)
        return self.complete

    def end(self) -> None:
        """The connection was closed.  Raises AnswerError when something is missing."""
        if self.complete:
            return
        if self._framing is _Framing.HEAD:
            if not self._head:
                if self._interim:
                    raise AnswerError("the connection was closed after an interim answer")
                raise AnswerError("the connection was closed without an answer")
            raise AnswerError("the connection was closed in the middle of the answer's head")
        if self._framing is _Framing.LENGTH:
            raise AnswerError(
                f"the connection was closed after {self.promised - self._left} of the "
                f"{self.promised} bytes that the body should have"
            )
        if self._framing is _Framing.CHUNKED:
            raise AnswerError("the connection was closed in the middle of a chunked body")
        self.complete = True

    @property
    def phase(self) -> str:
        """What is being waited for, in words."""
        if self._framing is not _Framing.HEAD:
            return "reading the body"
        return "reading the head" if self._head or self._interim else "waiting for the answer"

    # -- the head

    def _take_head(self, data: bytes) -> bytes | None:
        """What follows the last head, or None while there is none yet."""
        while True:
            held = self._head
            seen = len(held)
            held += data
            if held[:5] != b"HTTP/"[: len(held)]:
                raise AnswerError(f"the answer is not HTTP: it begins with {_glimpse(held)}")
            end, after = _end_of_head(held, max(seen - 2, 0))
            # Without an end yet, the earliest that is still possible.
            if (len(held) - 3 if end < 0 else end) > MAX_HEAD_BYTES:
                raise AnswerError(f"the head of the answer is over {MAX_HEAD_BYTES} bytes")
            if end < 0:
                return None
            head, rest = held[:end].decode("latin-1"), bytes(held[after:])
            self._head = bytearray()
            self._parse_head(head)
            if self.status >= 200 or self.status == 101:
                self._frame()
                return rest
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise AnswerError(f"more than {MAX_INTERIM} interim answers, and none that counts")
            self.status, self.headers = 0, {}
            if not rest:
                return None
            data = rest

    def _parse_head(self, head: str) -> None:
        lines = head.split("\n")
        line = lines[0].removesuffix("\r").encode("latin-1")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise AnswerError(f"the answer's first line is not HTTP/1: {_glimpse(line)}")
        self.status = int(match[2])
        if "\0" in head:
            raise AnswerError("the head of the answer has a NUL byte in it")
        headers = self.headers
        name = ""
        for text in lines[1:]:
            if text[:1] in (" ", "\t") and name:  # a folded line goes on with the header above
                headers[name] = f"{headers[name]} {text.strip()}"
                continue
            raw, colon, value = text.partition(":")
            if not colon:
                raise AnswerError("the head of the answer has a line that is not a header")
            # A name that is too long must not be among those that are kept.
            name = header_name(raw[: MAX_NAME_CHARS + 1])
            value = value.strip(" \t\r")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value

    def _frame(self) -> None:
        """Settle how the body ends (RFC 9112, 6.3)."""
        headers = self.headers
        if self._bodiless or self.status in (101, 204, 304):
            self._framing = _Framing.NONE
            self.complete = True
        elif coding := headers.get("transfer-encoding"):
            if coding.lower().rpartition(",")[2].strip() == "chunked":
                self._framing = _Framing.CHUNKED
                self._chunks = Chunks()
            else:
                self._framing = _Framing.CLOSE
        elif (length := headers.get("content-length")) is not None:
            lengths = {each.strip() for each in length.split(",")}
            given = lengths.pop()
            if lengths or not (given.isascii() and given.isdigit()) or len(given) > 18:
                raise AnswerError(f"the answer's Content-Length is not a length: {length[:40]}")
            self._framing = _Framing.LENGTH
            self._left = self.promised = int(given)
            self.complete = self._left == 0
        else:
            self._framing = _Framing.CLOSE

    # -- the body

    def _take_body(self, data: bytes) -> None:
        if self._framing is _Framing.LENGTH:
            if len(data) >= self._left:
                data = data[: self._left]
            self._left -= len(data)
            self.complete = self._left == 0
        elif self._chunks is not None:
            data = self._chunks.feed(data, self.max_body_bytes - len(self.body))
            self.complete = self._chunks.complete
        self.body += data
        if len(self.body) > self.max_body_bytes:
            del self.body[self.max_body_bytes :]
            self.complete = self.cut = True


def _end_of_head(held: bytearray, start: int) -> tuple[int, int]:
    """Where the head ends and what follows begins; both line endings are understood."""
    crlf = held.find(b"\n\r\n", start)
    bare = held.find(b"\n\n", start, crlf + 2 if crlf >= 0 else len(held))
    if bare >= 0:
        return bare, bare + 2
    return (crlf, crlf + 3) if crlf >= 0 else (-1, -1)


def _glimpse(data: bytes | bytearray) -> str:
    """The beginning of what is not HTTP: "SSH-2.0" says what is listening there."""
    return ascii(bytes(data[:24]).decode("latin-1"))
