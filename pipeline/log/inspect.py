"""Reading logs in place without owning them: for commands and pages, also beside a living process.

Nothing is written or locked, and no file is trusted: whatever is found is told as what it is.  A
log whose process writes while it is read is told as it was at some moment of that; the frame that
is being written then is `unfinished`, no damage.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.log.checkpoint import Checkpoint, TallyEntry, replay
from pipeline.log.disk import Disk
from pipeline.log.encoding import HEADER_BYTES, Meta
from pipeline.log.files import LOCK
from pipeline.log.journal import read_checkpoint, read_journal
from pipeline.log.manifest import Manifest
from pipeline.log.root import log_directories
from pipeline.log.scan import FIRST_OFFSET, Damage, Found, scan
from pipeline.log.segmentfile import VERSION, head_of, number_of

__all__ = [
    "Damage",
    "FrameInfo",
    "LogReport",
    "SegmentReport",
    "frames_of",
    "inspect_log",
    "logs_under",
    "owner_of",
    "scan_bytes",
    "scan_segment",
]

LOCKS = Path("/proc/locks")


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


class SegmentReport(msgspec.Struct, kw_only=True):
    """What a segment file holds.  `unfinished`: bytes that a living process is writing."""

    number: int
    name: str
    size: int
    frames: int = 0
    records: int = 0
    nbytes: int = 0
    first_position: int | None = None
    last_position: int | None = None
    damages: list[Damage] = msgspec.field(default_factory=list)
    unfinished: int = 0


class LogReport(msgspec.Struct, kw_only=True):
    """A log as its files tell it.

    `owner` is the process that holds its lock, 0 where none does or nobody can say; `left` counts
    by sink the records that are owed, `oldest_us` is when the first of them came; `settled` are
    files that a checkpoint has passed and nobody has deleted yet.
    """

    log_id: str
    directory: str
    owner: int
    generation: int
    next_position: int
    entries: int
    batches: int
    segments: list[SegmentReport]
    left: dict[str, int]
    oldest_us: int | None
    tallies: list[TallyEntry]
    settled: list[str] = msgspec.field(default_factory=list)
    troubles: list[str] = msgspec.field(default_factory=list)

    @property
    def corrupt(self) -> bool:
        """Whether anything in it is not as it was written."""
        return bool(self.troubles) or any(one.damages for one in self.segments)


def logs_under(path: Path) -> list[Path]:
    """The log directories that `path` names: itself, if it is one, or those in it.

    Raises OSError when it cannot be read.
    """
    os.listdir(path)
    return [path] if _is_log(path) else [one for one in log_directories(path) if _is_log(one)]


def _is_log(path: Path) -> bool:
    try:
        return any(number_of(name) is not None or name == LOCK for name in os.listdir(path))
    except FileNotFoundError:
        return False  # settled and removed a moment ago


def inspect_log(path: Path) -> LogReport:
    """Read a log's journal and every frame of its segments.  Raises OSError."""
    disk = Disk()
    owner = owner_of(path)
    troubles: list[str] = []
    generation, found, entries = read_journal(disk, path)
    if found is None and not owner:
        troubles += _without_checkpoint(disk, path)
    checkpoint = found or Checkpoint(log_id=path.name)
    manifest, ledger, ends = replay(checkpoint, entries)
    reader = _Reader(manifest, checkpoint.next_position)
    segments, settled = [], []
    numbered = segments_of(path)
    for number, file in numbered:
        if number < checkpoint.next_file and number not in checkpoint.files:
            settled.append(file.name)
            continue
        living = owner != 0 and (number, file) == numbered[-1]
        try:
            segments.append(_segment(file, number, ends.get(number), living, reader))
        except FileNotFoundError:
            continue  # settled and deleted while the others were read
        except OSError as error:
            troubles.append(f"{file.name} cannot be read: {error.strerror or error}")
    if not owner:  # of a living log something is always on its way
        troubles += reader.gaps
    missing = set(checkpoint.files) - {number for number, _ in numbered}
    if missing and not owner:
        named = ", ".join(map(str, sorted(missing)[:5]))
        troubles.append(f"segments are missing that the checkpoint counts on: {named}")
    return LogReport(
        log_id=path.name,
        directory=str(path),
        owner=owner,
        generation=generation,
        next_position=max(checkpoint.next_position, reader.next_position),
        entries=len(entries),
        batches=len(manifest.items()),
        segments=segments,
        left=dict(sorted(reader.left.items())),
        oldest_us=reader.oldest_us,
        tallies=[
            TallyEntry(sink, tenant, tally) for (sink, tenant), tally in ledger.tallies().items()
        ],
        settled=settled,
        troubles=troubles,
    )


class _Reader:
    """Counts what is owed while the frames go by."""

    def __init__(self, manifest: Manifest, counted_below: int) -> None:
        self.gaps: list[str] = []
        self._counted_below = counted_below
        self._records: int | None = None if counted_below else 0
        self.left: Counter[str] = Counter()
        self.oldest_us: int | None = None
        self.next_position = 0
        self._manifest = manifest
        self._extents: Counter[tuple[str, int]] = Counter()
        for _, sink, extents in manifest.items():
            for position, _, count in extents:
                self._extents[sink, position] += count

    def frame(self, frame: FrameInfo) -> None:
        known, before = self._records, frame.records_before
        if known is not None and before > known and frame.position >= self._counted_below:
            self.gaps.append(f"{before - known} records before frame {frame.position} are missing")
        self._records = before + frame.count
        self.next_position = max(self.next_position, frame.position + 1)
        owed = 0
        for share in frame.meta.shares:
            owed_to = self._extents[share.sink, frame.position]
            read, _ = self._manifest.reads.get(share.sink, (0, 0))
            if frame.position >= read:
                taken = self._manifest.taken(share.sink, frame.position)
                owed_to += max(0, share.count - taken)
            self.left[share.sink] += owed_to
            owed += owed_to
        if owed and (self.oldest_us is None or frame.received_us < self.oldest_us):
            self.oldest_us = frame.received_us


def _segment(
    path: Path, number: int, end: int | None, living: bool, reader: _Reader
) -> SegmentReport:
    report = SegmentReport(number=number, name=path.name, size=path.stat().st_size)
    for one in scan_segment(path, end=end):
        if isinstance(one, Damage):
            if living and one.tail:
                report.unfinished += one.nbytes
            else:
                report.damages.append(one)
            continue
        report.frames += 1
        report.records += one.count
        report.nbytes += one.nbytes
        report.last_position = one.position
        if report.first_position is None:
            report.first_position = one.position
        reader.frame(one)
    return report


def _without_checkpoint(disk: Disk, path: Path) -> list[str]:
    """Why no checkpoint counts; nothing where none was ever written."""
    spoilt = []
    for slot in (0, 1):
        try:
            data = (path / f"checkpoint.{slot}").read_bytes()
        except FileNotFoundError:
            continue
        if any(data) and read_checkpoint(data) is None:
            spoilt.append(f"checkpoint.{slot}")
    if spoilt:
        return [f"no checkpoint is sound: {' and '.join(spoilt)}"]
    if segments_of(path):
        return ["there is no checkpoint, and yet there are segments: it was emptied or deleted"]
    return []


def frames_of(path: Path) -> Iterator[tuple[str, FrameInfo]]:
    """Every sound frame of a log with the name of its segment file.  Raises OSError."""
    _, checkpoint, entries = read_journal(Disk(), path)
    _, _, ends = replay(checkpoint or Checkpoint(log_id=path.name), entries)
    for number, file in segments_of(path):
        try:
            for one in scan_segment(file, end=ends.get(number)):
                if isinstance(one, FrameInfo):
                    yield file.name, one
        except FileNotFoundError:
            continue  # settled and deleted while the others were read


def scan_segment(path: Path, *, end: int | None = None) -> Iterator[FrameInfo | Damage]:
    """Frames and damages of a segment file, up to `end` where it is known.  Raises OSError."""
    disk = Disk()
    fd = disk.open(path)
    try:
        size = disk.size(fd)
        head = disk.read(fd, FIRST_OFFSET, 0)
        known = head_of(head)
        if any(head) and (known is None or known.version != VERSION):
            yield Damage(0, len(head), "it does not begin as a segment does")
        for found in scan(disk, fd, start=FIRST_OFFSET, end=size if end is None else end):
            yield _info(found) if isinstance(found, Found) else found
    finally:
        disk.close(fd)


def scan_bytes(data: bytes) -> Iterator[FrameInfo | Damage]:
    """Frames and damages in bytes that were cut out of a segment."""
    for found in scan(_Bytes(data), -1, start=0, end=len(data)):
        yield _info(found) if isinstance(found, Found) else found
    if len(data) < HEADER_BYTES and any(data):
        yield Damage(0, len(data), "too short for a frame", None, True)


class _Bytes(Disk):
    """Bytes at hand, read as if they were a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        return self._data[offset : offset + nbytes]


def _info(found: Found) -> FrameInfo:
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


def segments_of(directory: Path) -> list[tuple[int, Path]]:
    """The segment files of a log, in order.  Raises OSError."""
    numbered = ((number_of(name), directory / name) for name in os.listdir(directory))
    return sorted((number, path) for number, path in numbered if number is not None)


def owner_of(directory: Path, *, locks: Path = LOCKS) -> int:
    """The process that holds a log's lock, by the kernel's table: asking for it would take it."""
    try:
        inode = (directory / LOCK).stat().st_ino
        lines = locks.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split()  # 1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[3] == "WRITE":
            _, _, of = fields[5].rpartition(":")
            if of == str(inode) and fields[4].lstrip("-").isdigit():
                return int(fields[4])
    return 0
