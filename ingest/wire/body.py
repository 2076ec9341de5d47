"""Reading a request's body: how long it may be, how much is there, what encoding it has.

Reads `wsgi.input` itself: Django's stream ends at Content-Length and so gives nothing for a
chunked body.  Runs on the request's thread, which a slow client holds until the server's read
deadline cuts the connection; what has been read by then is not a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from ingest.wire.errors import RequestError
from ingest.wire.inflate import ENCODINGS, inflate
from pipeline.intake.bytegate import Reservation

_PIECE_BYTES = 64 * 1024
_READ_AT_ONCE_BYTES = 1024 * 1024


def encoding_of(environ: Mapping[str, Any]) -> str:
    """The content encoding: "" (none), "gzip" or "zstd"; raises 415 for others."""
    sent = environ.get("HTTP_CONTENT_ENCODING", "")
    if not sent:
        return ""
    encoding = sent.strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding == "x-gzip":
        return "gzip"
    if encoding in ENCODINGS:
        return str(encoding)
    raise RequestError(
        415,
        "unsupported_encoding",
        f"Content-Encoding {sent[:80]!r} is not understood: send gzip, zstd, or none",
        supported=list(ENCODINGS),
    )


def length_of(environ: Mapping[str, Any], *, max_body_bytes: int) -> int | None:
    """Content-Length if it is acceptable, None for a chunked body; raises 400, 411 or 413."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        if environ.get("wsgi.input_terminated"):
            return None
        raise RequestError(
            411,
            "length_required",
            "this server cannot read chunked bodies: send a Content-Length",
        )
    sent = environ.get("CONTENT_LENGTH") or "0"
    if not (sent.isascii() and sent.isdigit()):
        raise RequestError(400, "bad_length", f"Content-Length {sent[:40]!r} is not a number")
    length = int(sent[:20])
    if length > max_body_bytes:
        raise too_large(max_body_bytes)
    return length


def too_large(max_body_bytes: int) -> RequestError:
    return RequestError(
        413,
        "body_too_large",
        f"the body is larger than {max_body_bytes} bytes: send less in one request",
        limit=f"max_body_bytes={max_body_bytes}",
    )


def read_body(
    environ: Mapping[str, Any],
    *,
    length: int | None,
    encoding: str,
    reservation: Reservation,
    max_body_bytes: int,
    max_inflated_bytes: int,
) -> bytes:
    """The whole body, inflated; `reservation` holds `length` already and grows with the rest."""
    stream = environ["wsgi.input"]
    if length is None:
        data = _read_chunked(stream, reservation, max_body_bytes)
    else:
        data = _read_exactly(stream, length)
    if encoding and data:
        return inflate(data, encoding, limit=max_inflated_bytes, grow=reservation.grow)
    return data


def _read_exactly(stream: BinaryIO, length: int) -> bytes:
    # One read is the usual case; some streams return what has arrived so far.
    data = _read(stream, min(length, _READ_AT_ONCE_BYTES)) if length else b""
    if len(data) == length:
        return data
    pieces = [data]
    left = length - len(data)
    while left > 0:
        piece = _read(stream, min(left, _READ_AT_ONCE_BYTES))
        if not piece:
            raise RequestError(
                400,
                "incomplete_body",
                f"the body ended after {length - left} of the {length} bytes that "
                "Content-Length announced",
            )
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _read_chunked(stream: BinaryIO, reservation: Reservation, max_body_bytes: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while piece := _read(stream, _PIECE_BYTES):
        total += len(piece)
        if total > max_body_bytes:
            raise too_large(max_body_bytes)
        reservation.grow(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.read(size)
    except TimeoutError:
        raise RequestError(
            408, "body_timeout", "the body did not arrive before the server's read deadline"
        ) from None
    except Exception as error:  # each server has errors of its own for a broken stream
        raise RequestError(
            400, "broken_body", f"the body could not be read: {str(error)[:200]}"
        ) from None
