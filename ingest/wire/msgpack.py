"""MessagePack bodies: an array of maps, or maps one after another, each a record.

A map is written out as the JSON object that it stands for, which the record keeps and which is
judged by what judges JSON.  What JSON has no form for (NaN, raw bytes, keys that are no text) is
refused rather than turned into something else; a timestamp extension becomes RFC 3339 text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec

from ingest.wire.errors import FAULT, RecordError, RequestError

# So much of a stream is looked at together, and so many maps of it are taken out of that at most.
_WINDOW_BYTES = 128 * 1024
_RUN = 512

_LARGEST = 1.7976931348623157e308
# A comparison with NaN fails, so the bounds refuse it with the infinities.
_Finite = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
_decode_flat = msgspec.msgpack.Decoder(dict[str, str | int | _Finite | bool | None]).decode
_decode_any = msgspec.msgpack.Decoder().decode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_KINDS = {list: "an array", str: "text", bool: "true or false", int: "a number",
          float: "a number", bytes: "raw bytes", type(None): "nil"}  # fmt: skip


def split(body: bytes, check_count: Callable[[int], None]) -> list[bytes]:
    """The pieces that should each be a map, still encoded; raises RequestError.

    `check_count` is told of a count before that many are made, and raises if it is too many.
    """
    first = body[0]
    if 0x90 <= first <= 0x9F:
        count, start = first & 0x0F, 1
    elif first in (0xDC, 0xDD):
        start = 3 if first == 0xDC else 5
        count = int.from_bytes(body[1:start], "big")
    else:
        return _split_stream(body, check_count)
    check_count(count)
    try:
        return list(map(bytes, _split(body)))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(error, 0, 0, len(body)) from None


def _split_stream(body: bytes, check_count: Callable[[int], None]) -> list[bytes]:
    """The values of a body without a header that counts them.

    A run of them is decoded behind an array's header of a guessed count: a guess that is too low
    tells where the run ends, one that is too high is halved.
    """
    pieces: list[bytes] = []
    at, window, guess = 0, _WINDOW_BYTES, _RUN
    while at < len(body):
        data = body[at : at + window]
        try:
            found, length = _run(data, guess)
        except (msgspec.DecodeError, RecursionError) as error:
            if not _is_short(error):
                raise _malformed(error, at, _HEADER_BYTES, len(body)) from None
            if guess > 1:
                guess //= 2
            elif at + window < len(body):
                window *= 4
            else:
                raise _malformed(error, at, _HEADER_BYTES, len(body)) from None
            continue
        pieces += map(bytes, found)
        check_count(len(pieces))
        at += length
        ahead = min(len(body) - at, _WINDOW_BYTES)
        guess = max(min(ahead * len(found) // length, _RUN), 1)
        window = _WINDOW_BYTES
    return pieces


_HEADER_BYTES = 3


def _run(data: bytes, count: int) -> tuple[list[msgspec.Raw], int]:
    """The first `count` values of `data`, and how many bytes they take."""
    header = b"\xdc" + count.to_bytes(2, "big")
    try:
        return _split(header + data), len(data)
    except msgspec.DecodeError as error:
        fault = FAULT.search(str(error))
        if "trailing characters" not in str(error) or fault is None:
            raise
        length = int(fault[1]) - _HEADER_BYTES
    return _split(header + data[:length]), length


def _is_short(error: Exception) -> bool:
    return str(error) == "Input data was truncated"


def _malformed(error: Exception, at: int, header: int, length: int) -> RequestError:
    """What is wrong with a body of `length` bytes; the decoder began at byte `at`."""
    if _is_short(error):
        said = f"the body ends too early (byte {length})"
    elif isinstance(error, RecursionError):
        said = f"something nests too deeply to be read (after byte {at})"
    else:
        said = str(error).removeprefix("MessagePack data is malformed: ")
        if fault := FAULT.search(said):
            said = f"{said[: fault.start()]}(byte {at + int(fault[1]) - header})"
    return RequestError(
        400,
        "malformed_msgpack",
        f"MessagePack is malformed: {said}. Send one array of maps, or maps one after another; "
        "nothing of it was stored",
    )


class Lines:
    """Writes maps out as JSON objects; see `binary`."""

    odd: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

    def __init__(self, *, max_depth: int) -> None:
        self._max_depth = max_depth

    def swiftly(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Maps of scalars that JSON has too, which most are."""
        return map(_encode, map(_decode_flat, pieces))

    def carefully(self, piece: bytes) -> bytes:
        return _encode(_patiently(piece, self._max_depth))


def _patiently(piece: bytes, max_depth: int) -> dict[str, Any]:
    try:
        fields = _decode_any(piece)
    except RecursionError:
        raise RecordError("too_deep", "the record nests too deeply to be read") from None
    except UnicodeDecodeError as error:
        raise RecordError("invalid_utf8", f"a text is not UTF-8: {error.reason}") from None
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError) as error:
        said = str(error).removeprefix("MessagePack data is malformed: ")
        raise RecordError("malformed_msgpack", f"MessagePack is malformed: {said}") from None
    if not isinstance(fields, dict):
        raise RecordError(
            "not_an_object", f"a record is a map, this is {_KINDS.get(type(fields), 'none')}"
        )
    _check(fields, max_depth, "the record")
    return fields


def _check(value: Any, depth: int, where: str) -> None:
    """Raise RecordError for what JSON cannot say; `depth` levels may be opened here."""
    if isinstance(value, dict | list):
        if not depth:
            raise RecordError("too_deep", "the record nests too deeply: store it as text")
        if isinstance(value, list):
            for item in value:
                _check(item, depth - 1, where)
            return
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(
                    "not_json", f"a key in {where} is {_name(key)}: in JSON every key is text"
                )
            _check(item, depth - 1, repr(key[:60]))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError("not_json", f"{where} is {value}, which JSON has no number for")
    elif not isinstance(value, str | int | datetime | None):
        raise RecordError(
            "not_json",
            f"{where} holds {_name(value)}, which JSON has no form for: send text (base64, say)",
        )


def _name(value: object) -> str:
    if isinstance(value, bytes):
        return "raw bytes (bin)"
    return _KINDS.get(type(value), "an extension type")
