"""Reading a segment file from front to back, past whatever is wrong with it.

A frame that fails its checksum is passed over by the length in its header; where the header
itself cannot be believed, the next one that can is searched for.  Runs on whoever reads: workers
that catch up, the adoption of a log, a command.  Nothing is locked.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec

from pipeline.log.disk import Disk
from pipeline.log.encoding import (
    ALIGNMENT,
    HEADER_BYTES,
    MAGIC,
    Header,
    Meta,
    decode_header,
    decode_meta,
)

# Every segment file begins with so many bytes of its own; see `segmentfile`.
FIRST_OFFSET = 64
_CHUNK = 1 << 20


class Found(msgspec.Struct, frozen=True, gc=False):
    """A sound frame at `offset`."""

    offset: int
    header: Header
    meta: Meta
    payload: bytes


class Damage(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are no sound frame.

    `header` and `meta` are those of the frame, where they can be believed: each has a checksum of
    its own.  `tail` tells that no sound frame follows.
    """

    offset: int
    nbytes: int
    why: str
    header: Header | None = None
    tail: bool = False
    meta: Meta | None = None


class _Window:
    """A piece of a file, moved along as it is read."""

    def __init__(self, disk: Disk, fd: int, end: int) -> None:
        self._disk = disk
        self._fd = fd
        self._end = end
        self._base = 0
        self._data = b""

    def at(self, offset: int, nbytes: int) -> tuple[bytes, int]:
        """Data that holds `nbytes` from `offset` (fewer at the end), and where in it they begin."""
        start = offset - self._base
        if start < 0 or start + nbytes > len(self._data):
            wanted = min(max(nbytes, _CHUNK), max(self._end - offset, 0))
            self._data = self._disk.read(self._fd, wanted, offset)
            self._base, start = offset, 0
        return self._data, start


def scan(disk: Disk, fd: int, *, start: int, end: int) -> Iterator[Found | Damage]:
    """Every frame from `start` up to `end`, in order, and every damage in between."""
    window = _Window(disk, fd, end)
    offset = start
    held: Damage | None = None  # told once it is known whether a sound frame follows
    while offset + HEADER_BYTES <= end:
        data, at = window.at(offset, HEADER_BYTES)
        header = decode_header(data, at)
        body = 0 if header is None else header.meta_bytes + header.payload_bytes
        if header is None or offset + HEADER_BYTES + body > end:
            after = _next_header(window, offset + ALIGNMENT, end)
            if held is not None:
                yield msgspec.structs.replace(held, tail=after is None)
                held = None
            stop = end if after is None else after
            if after is not None or _anything(window, offset, end):
                why, meta = "no frame begins here", None
                if header is not None:
                    why = "the frame is cut off"
                    data, at = window.at(offset, HEADER_BYTES + header.meta_bytes)
                    begin = at + HEADER_BYTES
                    meta = decode_meta(data[begin : begin + header.meta_bytes], header)
                yield Damage(offset, stop - offset, why, header, after is None, meta)
            offset = stop
            continue
        data, at = window.at(offset, HEADER_BYTES + body)
        begin = at + HEADER_BYTES
        meta_bytes = data[begin : begin + header.meta_bytes]
        payload = data[begin + header.meta_bytes : begin + body]
        if held is not None:
            yield held
            held = None
        meta = decode_meta(meta_bytes, header)
        if meta is None or zlib.crc32(payload) != header.payload_crc:
            held = Damage(offset, header.length, "the checksum does not fit", header, meta=meta)
        else:
            yield Found(offset, header, meta, payload)
        offset += header.length
    if held is not None:
        yield msgspec.structs.replace(held, tail=True)


def _next_header(window: _Window, offset: int, end: int) -> int | None:
    """Where the next frame begins that can be believed."""
    while offset + HEADER_BYTES <= end:
        data, at = window.at(offset, HEADER_BYTES)
        found = data.find(MAGIC, at)
        if found < 0:
            # What is at hand has none; the last bytes may hold the beginning of one.
            offset += max(len(data) - at - len(MAGIC) + 1, ALIGNMENT)
            offset -= offset % ALIGNMENT
            continue
        candidate = offset + found - at
        if candidate % ALIGNMENT == 0:
            data, at = window.at(candidate, HEADER_BYTES)
            if decode_header(data, at) is not None:
                return candidate
        offset = candidate + ALIGNMENT - candidate % ALIGNMENT
    return None


def _anything(window: _Window, offset: int, end: int) -> bool:
    """Whether any byte up to `end` is not zero: room set aside and never used is."""
    while offset < end:
        data, at = window.at(offset, 1)
        if not data:
            return False
        if data.count(0, at) != len(data) - at:
            return True
        offset += len(data) - at
    return False
