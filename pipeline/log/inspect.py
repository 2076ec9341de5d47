"""Reading logs in place without owning them: for commands and pages, also beside a living process.

Nothing is written or locked, and no file is trusted: whatever is found is told as what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.log.disk import Disk
from pipeline.log.encoding import HEADER_BYTES, Meta
from pipeline.log.scan import FIRST_OFFSET, Damage, Found, scan
from pipeline.log.segmentfile import number_of, sound_head

__all__ = ["Damage", "FrameInfo", "scan_bytes", "scan_segment"]


class FrameInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sound frame: where it is, what its header says, what its records share."""

    offset: int
    nbytes: int
    position: int
    count: int
    records_before: int
    received_us: int
    id_base: int
    meta: Meta
    payload: bytes


def info_of(found: Found) -> FrameInfo:
    header = found.header
    return FrameInfo(
        offset=found.offset,
        nbytes=header.length,
        position=header.position,
        count=header.count,
        records_before=header.records_before,
        received_us=header.received_us,
        id_base=header.id_base,
        meta=found.meta,
        payload=found.payload,
    )


class _Bytes(Disk):
    """Bytes at hand, read as if they were a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        return self._data[offset : offset + nbytes]


def scan_bytes(data: bytes) -> Iterator[FrameInfo | Damage]:
    """Frames and damages in bytes that were cut out of a segment."""
    for found in scan(_Bytes(data), -1, start=0, end=len(data)):
        yield info_of(found) if isinstance(found, Found) else found
    if len(data) < HEADER_BYTES and any(data):
        yield Damage(0, len(data), "too short for a frame", None, True)


def scan_segment(path: Path, *, end: int | None = None) -> Iterator[FrameInfo | Damage]:
    """Frames and damages of a segment file, up to `end` where it is known. Raises OSError."""
    disk = Disk()
    fd = disk.open(path)
    try:
        size = disk.size(fd)
        if not sound_head(disk.read(fd, FIRST_OFFSET, 0)):
            yield Damage(0, min(FIRST_OFFSET, size), "it does not begin as a segment does", None)
        for found in scan(disk, fd, start=FIRST_OFFSET, end=size if end is None else end):
            yield info_of(found) if isinstance(found, Found) else found
    finally:
        disk.close(fd)


def segments_of(directory: Path) -> list[tuple[int, Path]]:
    """The segment files of a log, in order. Raises OSError."""
    numbered = ((number_of(name), directory / name) for name in os.listdir(directory))
    return sorted((number, path) for number, path in numbered if number is not None)
