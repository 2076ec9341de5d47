"""Which format a body has, and its pieces: one a record, still undecoded."""

from __future__ import annotations

import enum
import re

import msgspec

from ingest.wire.errors import FAULT, RequestError, malformed


class Format(enum.Enum):
    JSON = "json"  # an object, an array, or lines: told apart by what is there
    LINES = "lines"
    TEXT = "text"
    MSGPACK = "msgpack"
    PROTOBUF = "protobuf"


_JSON_TYPES = {"application/json": Format.JSON, "text/json": Format.JSON}
_LINE_TYPES = dict.fromkeys(
    (
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/json-lines",
        "application/json-seq-lines",
        "application/stream+json",
        "text/x-ndjson",
        "text/ndjson",
    ),
    Format.LINES,
)
_MSGPACK_TYPES = dict.fromkeys(
    ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"), Format.MSGPACK
)
_PROTOBUF_TYPES = dict.fromkeys(
    ("application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf"),
    Format.PROTOBUF,
)
_FORMATS = {
    **_JSON_TYPES,
    **_LINE_TYPES,
    **_MSGPACK_TYPES,
    **_PROTOBUF_TYPES,
    "text/plain": Format.TEXT,
}
SUPPORTED = ("application/json", "application/x-ndjson", "application/msgpack")
# What can only be a log line: a bare line of text, and the messages of the schema.
LOGS_ONLY = ("text/plain", "application/x-protobuf")
_FORM_TYPES = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data"})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# Splitting a broken array by hand costs Python time for every token.
_LENIENT_SPLIT_BYTES = 1024 * 1024
# Each looks at all that follows.
_MAX_MENDS = 8

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb"[\[{](?:[^\[\]{}\"]++|" + _STRING + rb")*+[\]}]"
# What decides where an item of a broken array ends.  Objects without much inside, which most are,
# are passed over whole; a string without its end goes on to the end of the body.
_TOKENS = re.compile(
    rb"[\[{](?:[^\[\]{}\"]++|" + _STRING + rb"|" + _FLAT + rb")*+[\]}]|" + _STRING + rb"?|"
    rb"(?P<opening>[\[{]++)|(?P<closing>[\]}]++)|(?P<comma>,)",
    re.DOTALL,
)

_BOM = b"\xef\xbb\xbf"
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


def format_of(content_type: str, *, text: bool) -> Format:
    """The format that a Content-Type names; raises 415, with a way out, for any other.

    `text` tells whether a bare line of text can be a record here; where it cannot, the schema for
    protobuf has no message for one either.
    """
    known = _FORMATS.get(content_type)
    if known is None:
        kind, _, parameters = content_type.partition(";")
        kind = kind.strip().lower()
        known = _FORMATS.get(kind)
        if known is None and kind.startswith("application/") and kind.endswith("+json"):
            known = Format.JSON
        if known is None:
            raise _unsupported(kind, text=text)
        _check_charset(parameters)
    if known is Format.TEXT and not text:
        raise RequestError(
            415,
            "unsupported_media_type",
            "a line of plain text has no fields to read: send JSON, "
            "with curl: -H 'Content-Type: application/json' --data-binary @FILE",
            supported=_supported(text=text),
        )
    if known is Format.PROTOBUF and not text:
        raise RequestError(
            415,
            "unsupported_media_type",
            "the protobuf schema (docs/schema/collector.proto) has log records only: send "
            "application/json or application/msgpack",
            supported=_supported(text=text),
        )
    return known


def _supported(*, text: bool) -> list[str]:
    return [*SUPPORTED, *LOGS_ONLY] if text else list(SUPPORTED)


def _check_charset(parameters: str) -> None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            if charset not in _CHARSETS:
                raise RequestError(
                    415,
                    "unsupported_charset",
                    f"charset {charset[:40]!r} is not understood: send UTF-8",
                )


def _unsupported(kind: str, *, text: bool) -> RequestError:
    if kind in _FORM_TYPES:
        said = "no Content-Type" if not kind else f"a form ({kind})"
        hint = (
            f"the request has {said}, and nothing of it was stored. Name what you send, with "
            "curl: -H 'Content-Type: application/json' --data-binary @FILE for JSON or NDJSON"
        )
        if text:
            hint += ", -H 'Content-Type: text/plain' --data-binary @FILE for lines of text"
        return RequestError(415, "unsupported_media_type", hint, supported=_supported(text=text))
    supported = _supported(text=text)
    return RequestError(
        415,
        "unsupported_media_type",
        f"Content-Type {kind[:80]!r} is not understood: send {', '.join(supported)}",
        supported=supported,
    )


def split(body: bytes, format: Format) -> tuple[list[bytes], range | list[int]]:
    """The pieces that should each be one record, with their indexes; blank lines are passed over.

    No piece holds a line break.  A piece may still be anything: decoding judges it.
    """
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    if format is Format.JSON:
        start = body.lstrip(b" \t\r\n")[:1]
        if start == b"[":
            pieces = _split_array(body)
            return pieces, range(len(pieces))
        if start == b"{" and (whole := _single_object(body)) is not None:
            return [whole], range(1)
    return _split_lines(body)


def _split_lines(body: bytes) -> tuple[list[bytes], range | list[int]]:
    lines = body.split(b"\n")
    if b"\r" in body:
        lines = [line.rstrip(b"\r") for line in lines]
    if not lines[-1]:
        lines.pop()
    if b"" not in lines:
        return lines, range(len(lines))
    indexes = [index for index, line in enumerate(lines) if line]
    return [lines[index] for index in indexes], indexes


def _single_object(body: bytes) -> bytes | None:
    """The body if it is one JSON object, however many lines it is laid out on."""
    stripped = body.strip(b" \t\r\n")
    if b"\n" not in stripped:
        return stripped.replace(b"\r", b" ")
    first = stripped.find(b"\n")
    if stripped[first - 1 : first] in (b"}", b"\r") and _is_json(stripped[:first]):
        return None
    try:
        _decode_raw(stripped)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _one_line(stripped)


def _is_json(data: bytes) -> bool:
    try:
        _decode_raw(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _one_line(piece: bytes) -> bytes:
    # A raw line break is white space in JSON: inside a string it would have to be escaped.
    return piece.replace(b"\n", b" ").replace(b"\r", b" ")


def _split_array(body: bytes) -> list[bytes]:
    try:
        pieces = list(map(bytes, _decode_array(body)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if len(body) > _LENIENT_SPLIT_BYTES:
            raise RequestError(400, "malformed_json", malformed(error, len(body))) from None
        pieces = _split_broken_array(body.strip(b" \t\r\n"), error)
    if b"\n" in body or b"\r" in body:
        pieces = [_one_line(piece) for piece in pieces]
    return pieces


def _split_broken_array(body: bytes, error: Exception) -> list[bytes]:
    """The items of an array of which some are broken or too deep, as far as brackets can tell.

    What is sound around the first broken items is split at once, as an array of its own.
    """
    pieces: list[bytes] = []
    start, mends, fault = 1, 0, _fault_of(error)
    while True:
        if fault >= 0:
            start += _split_until(body, start, start - 1 + fault, pieces)
        end = _item_end(body, start)
        if end < 0 or (body[end] == 0x2C) == (end == len(body) - 1):
            raise RequestError(400, "malformed_json", malformed(error, len(body)))
        pieces.append(body[start:end].strip())
        if end == len(body) - 1:
            return pieces
        start = end + 1
        if fault < 0:
            continue
        try:
            return pieces + (list(map(bytes, _decode_array(b"[" + body[start:]))) or [b""])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as another:
            mends += 1
            fault = _fault_of(another) if mends < _MAX_MENDS else -1


def _split_until(body: bytes, start: int, fault: int, pieces: list[bytes]) -> int:
    """Append the items between `start` and the one with the fault, if these are easily told.

    Returns the length of what it has taken.
    """
    cut = body.rfind(b"},", start, fault)
    if cut < 0:
        return 0
    try:
        # What is an array with a bracket put here has this comma between two of its items.
        pieces += map(bytes, _decode_array(b"[" + body[start : cut + 1] + b"]"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return cut + 2 - start


def _fault_of(error: Exception) -> int:
    """At which byte the decoder stopped, or -1."""
    found = FAULT.search(str(error))
    return int(found[1]) if found else -1


def _item_end(body: bytes, start: int) -> int:
    """Where the item of an array ends that begins at `start`: its comma, the bracket, or -1."""
    depth = 1
    for token in _TOKENS.finditer(body, start):
        if token.lastgroup == "opening":
            depth += token.end() - token.start()
        elif token.lastgroup == "closing":
            count = token.end() - token.start()
            if count >= depth:
                return token.start() + depth - 1
            depth -= count
        elif depth == 1 and token.lastgroup == "comma":
            return token.start()
    return -1
