"""Bounded decompression of gzip (any number of members) and zstd (any number of frames).

Output is produced in steps and every step is reserved in the byte gate, so a bomb is refused
after at most one step more than the limit, whatever its ratio.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import zstandard

from ingest.wire.errors import RequestError

STEP_BYTES = 256 * 1024
_SLICE_BYTES = 64 * 1024
# What RFC 8878 asks every decoder to support; more would be memory that no gate counts.
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
# A shipper may flush a member for each of its lines; more are empty ones that only cost time.
_MAX_MEMBERS = 100_000
_GZIP_WBITS = 31

ENCODINGS = ("gzip", "zstd")


def inflate(data: bytes, encoding: str, *, limit: int, grow: Callable[[int], None]) -> bytes:
    """The inflated body; `grow(n)` is called for each n bytes produced, before they are kept."""
    pieces: list[bytes] = []
    total = 0
    pieces_of = _gunzip(data) if encoding == "gzip" else _unzstd(data, limit)
    for piece in pieces_of:
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        grow(len(piece))
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _gunzip(data: bytes) -> Iterator[bytes]:
    decoder = zlib.decompressobj(_GZIP_WBITS)
    view = memoryview(data)
    position = members = 0
    try:
        while position < len(view):
            # Small slices: what a step leaves unconsumed is copied, so it has to stay small.
            pending: bytes | memoryview = view[position : position + _SLICE_BYTES]
            position += len(pending)
            while pending:
                piece = decoder.decompress(pending, STEP_BYTES)
                if piece:
                    yield piece
                if not decoder.eof:
                    pending = decoder.unconsumed_tail
                    continue
                pending = decoder.unused_data.lstrip(b"\0")
                if not pending and not bytes(view[position:]).strip(b"\0"):
                    return
                members += 1
                if members > _MAX_MEMBERS:
                    raise _broken("gzip", f"it has more than {_MAX_MEMBERS} members")
                decoder = zlib.decompressobj(_GZIP_WBITS)
            if decoder.eof:
                decoder = zlib.decompressobj(_GZIP_WBITS)
        while piece := decoder.decompress(b"", STEP_BYTES):
            yield piece
    except zlib.error as error:
        raise _broken("gzip", str(error)) from None
    raise _broken("gzip", "it ends in the middle of a member")


def _unzstd(data: bytes, limit: int) -> Iterator[bytes]:
    # The streaming reader takes a truncated frame for a finished one, so the frames are walked.
    _walk_zstd(data, limit)
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    try:
        with decoder.stream_reader(data, read_across_frames=True) as reader:
            while piece := reader.read(STEP_BYTES):
                yield piece
    except (zstandard.ZstdError, MemoryError) as error:
        raise _broken("zstd", str(error)) from None


def _walk_zstd(data: bytes, limit: int) -> None:
    """Raise unless `data` is a run of whole frames; looks at headers only.

    A block holds kilobytes, or a line where a sender flushed after each: more blocks than the
    limit has lines are a bomb, or millions of empty ones to walk.
    """
    position = 0
    blocks_left = 4096 + limit // 256
    try:
        while position < len(data):
            (magic,) = struct.unpack_from("<I", data, position)
            if magic & 0xFFFFFFF0 == _SKIPPABLE_MAGIC:
                (size,) = struct.unpack_from("<I", data, position + 4)
                position += 8 + size
                continue
            if magic != _ZSTD_MAGIC:
                raise _broken("zstd", f"there is no frame at byte {position}")
            header = data[position : position + 18]
            parameters = zstandard.get_frame_parameters(header)
            position += zstandard.frame_header_size(header)
            last = False
            while not last:
                blocks_left -= 1
                if blocks_left < 0:
                    raise _too_large(limit)
                block = int.from_bytes(data[position : position + 3], "little")
                if position + 3 > len(data):
                    raise _broken("zstd", "it ends in the middle of a frame")
                last = bool(block & 1)
                position += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
            position += 4 if parameters.has_checksum else 0
    except (struct.error, zstandard.ZstdError) as error:
        raise _broken("zstd", str(error)) from None
    if position != len(data):
        raise _broken("zstd", "it ends in the middle of a frame")


def _broken(encoding: str, why: str) -> RequestError:
    return RequestError(400, "bad_compression", f"the {encoding} body is broken: {why}")


def _too_large(limit: int) -> RequestError:
    return RequestError(
        413,
        "inflated_too_large",
        f"the body inflates to more than {limit} bytes: send less in one request",
        limit=f"max_inflated_bytes={limit}",
    )
