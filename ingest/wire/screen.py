"""Poison that decoding lets through and a store would choke on: found in bulk, named per record.

msgspec skips fields it was not asked for, and with them invalid UTF-8, `\\u0000`, lone surrogates
and numbers that PostgreSQL's jsonb or a later reader cannot hold.  `Screen` looks once at the
whole body with the fastest byte operations there are; only what it suspects is looked at line by
line, and only a suspicious line is judged by `judge`.
"""

from __future__ import annotations

import re
from operator import itemgetter

from ingest.wire.errors import RecordError

# A number of more digits than this, or a larger exponent, is beyond what readers can take back:
# Python parses at most 4,300 digits, PostgreSQL keeps at most 16,383 after the point.
MAX_DIGITS = 1000
MAX_EXPONENT = 999
# So many lines are looked at together, before any of them is by itself.
GROUP_LINES = 32

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_BAD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_TOKEN = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?([0-9][0-9.]*+)(?:[eE]([+-]?[0-9]++))?', re.DOTALL
)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_first = itemgetter(slice(1))
_BRACKETS = re.compile(rb"[\[{]|[\]}]")

# Digits, points and signs look alike, and so do both letters of an exponent.
_SHAPE = bytes.maketrans(b"123456789.+-E", b"000000000000e")
_LARGE_EXPONENT = b"0e0000"
_MANY_DIGITS = b"0" * MAX_DIGITS
_IS_EXPONENT = re.compile(rb"[0-9.][eE][+-]?[0-9]{3,}[\s,}\]]").match


class Screen:
    """What is suspicious about a body; the flags say which looks each line needs."""

    __slots__ = ("clean", "depth", "encoding", "escapes", "max_depth", "max_record_bytes",
                 "numbers", "size")  # fmt: skip

    def __init__(
        self, body: bytes, lines: list[bytes], *, max_depth: int, max_record_bytes: int
    ) -> None:
        self.max_depth = max_depth
        self.max_record_bytes = max_record_bytes
        self.encoding = not _is_utf8(body)
        self.escapes = b"\\" in body and b"\\u" in body
        self.numbers = _has_large_number(body)
        self.depth = _nests(body, lines, max_depth)
        self.size = len(body) > max_record_bytes
        self.clean = not (self.encoding or self.escapes or self.numbers or self.depth or self.size)

    def suspects(self, lines: list[bytes]) -> list[int]:
        """Places in `lines` that `judge` should look at."""
        found: list[int] = []
        for start in range(0, len(lines), GROUP_LINES):
            group = lines[start : start + GROUP_LINES]
            if self._is_suspect(b"\n".join(group), group):
                found += (
                    start + place
                    for place, line in enumerate(group)
                    if self._is_suspect(line, [line])
                )
        return found

    def _is_suspect(self, data: bytes, lines: list[bytes]) -> bool:
        """Whether something is suspicious about any of some lines, which `data` is all of."""
        return (
            (self.size and len(data) > self.max_record_bytes)
            or (self.encoding and not _is_utf8(data))
            or (self.escapes and b"\\" in data and _BAD_ESCAPE.search(data) is not None)
            or (self.depth and _nests(data, lines, self.max_depth))
            or (self.numbers and _has_large_number(data))
        )

    def judge(self, line: bytes) -> None:
        """Raise RecordError if this line has any of the poisons."""
        if len(line) > self.max_record_bytes:
            raise RecordError(
                "record_too_large",
                f"the record has {len(line)} bytes, the most is {self.max_record_bytes}",
            )
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise RecordError(
                "invalid_utf8", f"byte {error.start} is not UTF-8: {error.reason}"
            ) from None
        if _BAD_ESCAPE.search(line):
            _judge_escapes(line)
        if line.count(b"{") + line.count(b"[") > self.max_depth:
            _judge_depth(line, self.max_depth)
        if _has_large_number(line):
            _judge_numbers(line)


def _nests(data: bytes, lines: list[bytes], max_depth: int) -> bool:
    # Looking for a byte that is not there is far faster than counting it.
    opened = data.count(b"{") + (data.count(b"[") if b"[" in data else 0)
    # A line that is an object opens a bracket of its own; what else a line may be opens none.
    return opened >= max_depth and opened - list(map(_first, lines)).count(b"{") >= max_depth


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _has_large_number(data: bytes) -> bool:
    shape = data.translate(_SHAPE)
    # From the back: the search then tests for the rare letter first, three times as fast.
    at = shape.rfind(_LARGE_EXPONENT)
    while at >= 0:
        # Hexadecimal ids have this shape too, but go on with letters or end in a quote.
        if _IS_EXPONENT(data, at):
            return True
        at = shape.rfind(_LARGE_EXPONENT, 0, at + 1)
    return len(data) > MAX_DIGITS and _MANY_DIGITS in shape


def _judge_escapes(line: bytes) -> None:
    after_high = -1
    for found in _ESCAPE.finditer(line):
        digits = found[1]
        if digits is None:
            continue
        code = int(digits, 16)
        if code == 0:
            raise RecordError(
                "nul_character",
                f"\\u0000 at byte {found.start()}: a NUL character cannot be stored as text",
            )
        if 0xDC00 <= code <= 0xDFFF:
            if found.start() != after_high:
                raise _lone_surrogate(digits, found.start())
            after_high = -1
        elif 0xD800 <= code <= 0xDBFF:
            after_high = found.end()
            if line[after_high : after_high + 2] != b"\\u" or not re.match(
                rb"[dD][c-fC-F]", line[after_high + 2 : after_high + 4]
            ):
                raise _lone_surrogate(digits, found.start())


def _lone_surrogate(digits: bytes, at: int) -> RecordError:
    return RecordError(
        "lone_surrogate",
        f"\\u{digits.decode()} at byte {at} is half of a surrogate pair, which is no character",
    )


def _judge_depth(line: bytes, max_depth: int) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(_STRING.sub(b"", line)):
        if bracket[0] in b"[{":
            depth += 1
            if depth > max_depth:
                raise RecordError("too_deep", f"the record nests deeper than {max_depth} levels")
        else:
            depth -= 1


def _judge_numbers(line: bytes) -> None:
    for token in _TOKEN.finditer(line):
        digits, exponent = token[1], token[2]
        if digits is None:
            continue
        if len(digits) > MAX_DIGITS or (exponent and _magnitude(exponent) > MAX_EXPONENT):
            raise RecordError(
                "number_out_of_range",
                f"the number at byte {token.start()} has more than {MAX_DIGITS} digits or an "
                f"exponent beyond {MAX_EXPONENT}: send it as text",
            )


def _magnitude(exponent: bytes) -> int:
    digits = exponent.lstrip(b"+-").lstrip(b"0")
    return int(digits) if len(digits) < 10 and digits else (0 if not digits else MAX_EXPONENT + 1)
