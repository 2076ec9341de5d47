"""Reading answers: bounded in bytes, also once decompressed, and as values that can be stored.

Pure but for reading from the response, on the thread that made the call.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any

import httpx

from control.admin.inert import one_line

SHOWN_CHARS = 300
_SHOWN_BYTES = 4_096
MAX_DEPTH = 100
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII)
_CHARSETS = frozenset({"utf-8", "us-ascii", "iso-8859-1", "windows-1252"})
_POISON = re.compile("[\x00\ud800-\udfff]")


class TooLargeError(Exception):
    """The answer is larger than is taken."""


class GarbageError(Exception):
    """The answer is not what it says it is."""


def read(response: httpx.Response, *, limit: int) -> bytes:
    """All of the body, decompressed.  Raises TooLargeError, GarbageError, and as the wire does."""
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > limit:
            raise TooLargeError
        chunks.append(chunk)
    raw = b"".join(chunks)
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity") or not raw:
        return raw
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _inflated(raw, limit)
    raise GarbageError(f"in the encoding {one_line(encoding, limit=40)!r}, which nobody asked for")


def _inflated(raw: bytes, limit: int) -> bytes:
    """Gzip or zlib, several members in a row too, and never more than `limit` bytes of it."""
    found = b""
    while raw:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            found += inflater.decompress(raw, limit + 1 - len(found))
        except zlib.error as error:
            raise GarbageError(f"that cannot be decompressed: {error}") from None
        if len(found) > limit:
            raise TooLargeError
        if not inflater.eof:
            raise GarbageError("whose compressed body breaks off")
        raw = inflater.unused_data.lstrip(b"\0")
    return found


def beginning(response: httpx.Response) -> str:
    """The first words of a body, for people; "" when there are none."""
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return ""
    found = b""
    for chunk in response.iter_raw():
        found += chunk
        if len(found) >= _SHOWN_BYTES:
            break
    return one_line(found[:_SHOWN_BYTES].decode("utf-8", "replace"), limit=SHOWN_CHARS)


def value(response: httpx.Response, body: bytes) -> Any:
    """The body as a JSON value, or text where it is not said to be JSON; None when it is empty.

    Raises GarbageError.
    """
    if not body:
        return None
    kind, _, rest = response.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind and not _JSON.fullmatch(kind):
        return _kept(body.decode(_charset(rest), "replace"))
    try:
        return _parsed(body)
    except GarbageError:
        if kind:
            raise
        return _kept(body.decode("utf-8", "replace"))


def _charset(parameters: str) -> str:
    found = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.ASCII | re.IGNORECASE)
    named = found[1].lower() if found else "utf-8"
    return named if named in _CHARSETS else "utf-8"


def _parsed(body: bytes) -> Any:
    try:
        found = json.loads(body, parse_constant=_no_number, parse_float=_finite)
        return _cleaned(found, depth=0)
    except (ValueError, RecursionError) as error:
        words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise GarbageError(f"that is not JSON: {one_line(words, limit=120)}") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("a number is too large")
    return found


def _cleaned(found: Any, *, depth: int) -> Any:
    """The value with what no database stores written out in its texts."""
    if isinstance(found, str):
        return _kept(found)
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(found, list):
        return [_cleaned(one, depth=depth + 1) for one in found]
    if isinstance(found, dict):
        return {_kept(key): _cleaned(one, depth=depth + 1) for key, one in found.items()}
    return found


def _kept(text: str) -> str:
    return _POISON.sub(lambda one: f"\\u{ord(one.group()):04x}", text)
