"""The segment files of one log: which there are, how much of each is owed, and reading from them.

A file begins with 64 bytes: magic "CLsg", version, the log's id, its own number, a checksum; frames
follow.  What is known of the files (`SegmentFile`) is guarded by the log's lock; reading is done
without it, from a list taken under it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.log.disk import Disk
from pipeline.log.scan import FIRST_OFFSET, Damage, Found, scan

MAGIC = b"CLsg"
VERSION = 1
_HEAD = struct.Struct("<4sHH32sQ")
_PREFIX, _SUFFIX = "segment-", ".seg"


class Place(NamedTuple):
    """Where a frame begins: the number of the file, and the offset in it."""

    file: int
    offset: int


class SegmentFile(msgspec.Struct, gc=False, kw_only=True):
    """One file.  `end` is where its sound frames end, `owed` how many records of it are awaited.

    `sealed` tells that nothing is appended to it any more.
    """

    number: int
    path: Path
    size: int
    end: int = FIRST_OFFSET
    owed: int = 0
    sealed: bool = False


def path_of(directory: Path, number: int) -> Path:
    return directory / f"{_PREFIX}{number:012d}{_SUFFIX}"


def number_of(name: str) -> int | None:
    """The number of a segment file by its name; None for any other file."""
    digits = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    named = name.startswith(_PREFIX) and name.endswith(_SUFFIX) and digits.isascii()
    return int(digits) if named and digits.isdigit() else None


def encode_head(log_id: str, number: int) -> bytes:
    """The first 64 bytes of a segment file."""
    packed = _HEAD.pack(MAGIC, VERSION, 0, log_id.encode()[:32], number)
    return (packed + struct.pack("<I", zlib.crc32(packed))).ljust(FIRST_OFFSET, b"\0")


class Head(NamedTuple):
    """What a file says of itself; `log_id` is its log's, or the first 32 characters of it."""

    version: int
    log_id: str
    number: int


def head_of(data: bytes) -> Head | None:
    """What a file's first 64 bytes tell; None where they cannot be believed."""
    packed = data[: _HEAD.size]
    if len(data) < FIRST_OFFSET or not packed.startswith(MAGIC):
        return None
    (crc,) = struct.unpack_from("<I", data, _HEAD.size)
    if crc != zlib.crc32(packed):
        return None
    _, version, _, log_id, number = _HEAD.unpack(packed)
    return Head(version, log_id.rstrip(b"\0").decode(errors="replace"), number)


class Piece(NamedTuple):
    """A file as it was when somebody wanted to read it."""

    number: int
    path: Path
    end: int


def read_from(
    disk: Disk, pieces: Sequence[Piece], place: Place
) -> Iterator[tuple[Place, Found | Damage]]:
    """Every frame at or after `place` in the pieces, which are in the order of their numbers."""
    for piece in pieces:
        if piece.number < place.file:
            continue
        start = place.offset if piece.number == place.file else FIRST_OFFSET
        if start >= piece.end:
            continue
        try:
            fd = disk.open(piece.path)
        except FileNotFoundError:
            continue  # everything in it had settled; or it is lost, which the counts will show
        try:
            for found in scan(disk, fd, start=start, end=piece.end):
                yield Place(piece.number, found.offset), found
        finally:
            disk.close(fd)


class SegmentFiles:
    """The files of one log by number; all of it is guarded by the log's lock."""

    def __init__(self) -> None:
        self._files: dict[int, SegmentFile] = {}
        # Where files end that were cut off after a failed write or sync.
        self.ends: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._files)

    def add(self, file: SegmentFile) -> None:
        self._files[file.number] = file

    def get(self, number: int) -> SegmentFile | None:
        return self._files.get(number)

    @property
    def numbers(self) -> list[int]:
        return sorted(self._files)

    @property
    def nbytes(self) -> int:
        """The room that all files take."""
        return sum(file.size for file in self._files.values())

    def owe(self, number: int, records: int, *, end: int) -> None:
        """A frame of so many awaited records was appended to a file, which now ends at `end`."""
        file = self._files[number]
        file.owed += records
        file.end = end

    def settle(self, number: int, records: int) -> bool:
        """Records of a file have ended; returns whether the file can go."""
        file = self._files.get(number)
        if file is None:
            return False
        file.owed -= records
        return file.owed == 0 and file.sealed

    def pieces(self, place: Place) -> list[Piece]:
        """What may be read from `place` on."""
        return [
            Piece(file.number, file.path, file.end)
            for _, file in sorted(self._files.items())
            if file.number >= place.file
        ]

    @property
    def oldest_owed(self) -> int | None:
        """The first file that something is awaited of."""
        return min((n for n, file in self._files.items() if file.owed), default=None)

    def take_settled(self) -> list[SegmentFile]:
        """The sealed files of which nothing is awaited; they are not known here any more."""
        gone = [file for file in self._files.values() if file.sealed and not file.owed]
        for file in gone:
            del self._files[file.number]
        return gone

    def forget_ends(self, files: Sequence[SegmentFile]) -> None:
        """These files are deleted."""
        for file in files:
            self.ends.pop(file.number, None)

    def put_back(self, files: Sequence[SegmentFile]) -> None:
        """Files that could not be deleted yet."""
        for file in files:
            self._files[file.number] = file
