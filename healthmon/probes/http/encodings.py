"""Content codings taken off a body, never further than the bound: a bomb costs what a page costs.

Pure functions; any thread may call them.
"""

from __future__ import annotations

import codecs
import zlib
from io import BytesIO

import zstandard

from healthmon.probes.http.errors import AnswerError

MAX_CODINGS = 3
MAX_MEMBERS = 100  # gzip members or zstd frames in one body; each costs a look at the rest
ZSTD_WINDOW_BYTES = 8 * 1024 * 1024  # the largest that browsers take (RFC 9659)
# Decoding with these is linear and never grows a body by more than a small factor.
_CHARSETS = frozenset(
    {f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))}
    | {f"cp125{page}" for page in range(9)}
    | {"utf-16", "utf-16-le", "utf-16-be", "utf-32", "koi8-r", "koi8-u"}
    | {"shift_jis", "cp932", "euc_jp", "euc_kr", "gbk", "gb2312", "gb18030", "big5"}
)


def decode(body: bytes, headers: dict[str, str], *, cut: bool, bound: int) -> tuple[bytes, bool]:
    """The body without its codings, and whether it was longer than `bound`.

    `cut` when only the beginning of the body was read.  Raises AnswerError.
    """
    codings = _codings(headers)
    if len(codings) > MAX_CODINGS:
        raise AnswerError(f"the body is encoded more than {MAX_CODINGS} times")
    for coding in reversed(codings):
        if coding in ("gzip", "x-gzip"):
            body, cut = _inflate(body, "gzip", 31, cut=cut, bound=bound)
        elif coding == "deflate":
            body, cut = _deflate(body, cut=cut, bound=bound)
        elif coding == "zstd":
            body, cut = _zstd(body, cut=cut, bound=bound)
        else:
            raise AnswerError(f"the body is encoded with {coding[:20]!a}, which is not understood")
    return body, cut


def to_utf8(body: bytes, headers: dict[str, str]) -> bytes:
    """The body's text in UTF-8, when its content type names another charset that is known."""
    _, found, rest = headers.get("content-type", "").lower().partition("charset=")
    name = rest.partition(";")[0].strip(" \t\"'")
    if not found or name in ("utf-8", "utf8", "us-ascii"):
        return body
    try:
        charset = codecs.lookup(name).name
    except (LookupError, ValueError):
        return body
    return body.decode(charset, "replace").encode() if charset in _CHARSETS else body


def _codings(headers: dict[str, str]) -> list[str]:
    found = []
    for header in ("content-encoding", "transfer-encoding"):
        if value := headers.get(header):
            found += [each.strip().lower() for each in value.split(",")]
    return [each for each in found if each not in ("", "identity", "chunked")]


def _inflate(body: bytes, name: str, window: int, *, cut: bool, bound: int) -> tuple[bytes, bool]:
    out = bytearray()
    for _ in range(MAX_MEMBERS):
        if not body:
            return bytes(out), cut
        inflater = zlib.decompressobj(window)
        try:
            out += inflater.decompress(body, bound + 1 - len(out))
        except zlib.error:
            raise AnswerError(f"the body is said to be {name}, but is not") from None
        if len(out) > bound:
            return bytes(out[:bound]), True
        if not inflater.eof:
            if not cut:
                raise AnswerError(f"the {name} body ends too early")
            return bytes(out), cut
        body = inflater.unused_data if window == 31 else b""  # gzip may have several members
    raise AnswerError(f"the {name} body has {MAX_MEMBERS} members or more")


def _deflate(body: bytes, *, cut: bool, bound: int) -> tuple[bytes, bool]:
    """With zlib's wrapping, as the RFC says, or bare, as some servers do."""
    wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return _inflate(body, "deflate", 15 if wrapped else -15, cut=cut, bound=bound)


def _zstd(body: bytes, *, cut: bool, bound: int) -> tuple[bytes, bool]:
    if not body:
        return b"", cut
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    reader = decompressor.stream_reader(BytesIO(body), read_across_frames=True)
    out = bytearray()
    try:
        while len(out) <= bound and (piece := reader.read(bound + 1 - len(out))):
            out += piece
    except zstandard.ZstdError:
        raise AnswerError("the body is said to be zstd, but is not") from None
    if len(out) > bound:
        return bytes(out[:bound]), True
    if not cut and not _ends_a_frame(body):
        raise AnswerError("the zstd body ends too early")
    return bytes(out), cut


def _ends_a_frame(body: bytes) -> bool:
    """Whether the last frame is whole, which the bounded reader does not tell.

    Only for a body that is known to be within the bound once decoded.
    """
    for _ in range(MAX_MEMBERS):
        frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
        frame.decompress(body)
        if not frame.eof or not frame.unused_data:
            return bool(frame.eof)
        body = frame.unused_data
    raise AnswerError(f"the zstd body has more than {MAX_MEMBERS} frames")
