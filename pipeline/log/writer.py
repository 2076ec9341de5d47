"""The writer of a log's segment files: frames of many requests with one write and one sync.

The first request thread that needs its frame on disk writes those of all that have queued by then
(`groupcommit`); frames that nobody waits for are written by the keeper's thread.  What is owned
by whoever leads is marked so; `lock` is the log's and guards the segment files.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import LogUnavailable
from pipeline.log.checkpoint import Cut
from pipeline.log.disk import Disk
from pipeline.log.encoding import HEADER_BYTES, encode_header, encode_meta, padded
from pipeline.log.frame import Frame
from pipeline.log.groupcommit import Entry, GroupCommit
from pipeline.log.journal import Journal
from pipeline.log.scan import FIRST_OFFSET
from pipeline.log.segmentfile import SegmentFile, SegmentFiles, encode_head, path_of
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer

log = logging.getLogger(__name__)

# After a failure the disk is tried again so often (seconds).
RETRY_S = 1.0
_SYNCS_REMEMBERED = 1_024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Publish = Callable[[Sequence[Frame], int], None]


class _Append(Entry):
    """A frame on its way into a file."""

    __slots__ = ("durable", "frame", "meta", "meta_crc", "nbytes", "payload_crc")

    def __init__(self, frame: Frame, *, durable: bool) -> None:
        super().__init__()
        self.frame = frame
        self.durable = durable
        self.meta = encode_meta(frame)
        self.meta_crc = zlib.crc32(self.meta)
        self.payload_crc = zlib.crc32(frame.payload)
        self.nbytes = padded(HEADER_BYTES + len(self.meta) + len(frame.payload))


class _Open:
    """The file that is appended to."""

    __slots__ = ("fd", "file", "offset")

    def __init__(self, fd: int, file: SegmentFile) -> None:
        self.fd = fd
        self.file = file
        self.offset = FIRST_OFFSET


class SegmentWriter:
    """Appends to one log's files; see the module's text."""

    def __init__(
        self,
        *,
        log_id: str,
        directory: Path,
        disk: Disk,
        settings: LogSettings,
        segments: SegmentFiles,
        journal: Journal,
        observer: Observer,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_id = log_id
        self._directory = directory
        self._disk = disk
        self._settings = settings
        self._segments = segments
        self._journal = journal
        self._observer = observer
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._publish: Publish = _nowhere
        self.unwritten = threading.Event()  # frames are queued that nobody waits for
        self._group: GroupCommit[_Append] = GroupCommit(
            self._carry_out, unwanted=self.unwritten.set
        )
        # Owned by whoever leads.
        self._open: _Open | None = None
        self._position = 0
        self._records = 0
        self._unsynced = False
        self._closed = False
        # Replaced whole, by whoever leads or prepares; read by anybody.
        self.next_file = 1
        self.error = ""
        self.full = False
        self._retry_at = 0.0
        # The next file, made ahead; `_spare_lock` guards it.
        self._spare_lock = threading.Lock()
        self._spare: _Open | None = None
        # Figures, each written by whoever leads.
        self.appended_frames = 0
        self.appended_bytes = 0
        self.syncs = 0
        self.sync_seconds = 0.0
        self._recent_syncs: deque[float] = deque(maxlen=_SYNCS_REMEMBERED)

    def bind(self, lock: threading.Lock, publish: Publish) -> None:
        self._lock, self._publish = lock, publish

    # --- appending -------------------------------------------------------------------------

    def append(self, frame: Frame, *, durable: bool) -> None:
        """Queue a frame, and with `durable` wait until it is in the files.

        Raises LogUnavailable when it is not, and then keeps nothing of it.
        """
        if (refusal := self.refusal()) is not None:
            raise refusal
        entry = _Append(frame, durable=durable)
        if not durable:
            self._group.leave(entry)
            return
        self._group.do(entry)
        if entry.error is not None:
            raise self._unavailable() from entry.error

    def refusal(self) -> LogUnavailable | None:
        """Why nothing can be appended now; None once the disk may be tried again."""
        if self._closed or (self.error and self._monotonic() < self._retry_at):
            return self._unavailable()
        return None

    @property
    def state(self) -> str:
        """One word for the operator."""
        if self._closed:
            return "closed"
        if not self.error:
            return "ok"
        return "full" if self.full else "failing"

    def _unavailable(self) -> LogUnavailable:
        what = "is full" if self.full else "cannot be written"
        return LogUnavailable(
            f"the log {what}: {self.error or 'it is closed'}; nothing was taken in",
            retry_after_s=5.0,
        )

    def write_queued(self) -> None:
        """Write the frames that nobody waits for; the keeper's part."""
        self.unwritten.clear()
        self._group.run()

    def flush(self) -> None:
        """Return once every frame that was queued by now is in a file, or refused."""
        self._group.flush()

    def _carry_out(self, entries: list[_Append]) -> None:
        start = 0
        while start < len(entries):
            try:
                current = self._room_for(entries[start])
            except OSError as error:
                self._refuse(entries[start:], error)
                return
            stop, room = start, current.file.size - current.offset
            while stop < len(entries) and entries[stop].nbytes <= room:
                room -= entries[stop].nbytes
                stop += 1
            self._write(current, entries[start:stop])
            start = stop

    def _write(self, current: _Open, entries: list[_Append]) -> None:
        buffers: list[bytes] = []
        offset = begin = current.offset
        records = self._records
        for entry in entries:
            frame = entry.frame
            frame.position, frame.file, frame.offset = self._position, current.file.number, offset
            self._position += 1
            buffers += (
                encode_header(
                    frame,
                    meta_bytes=len(entry.meta),
                    meta_crc=entry.meta_crc,
                    payload_crc=entry.payload_crc,
                    records_before=records,
                ),
                entry.meta,
                frame.payload,
            )
            records += frame.count
            offset += entry.nbytes
            gap = entry.nbytes - HEADER_BYTES - len(entry.meta) - len(frame.payload)
            if gap:
                buffers.append(bytes(gap))
        began = self._monotonic()
        try:
            self._disk.write(current.fd, buffers, begin)
            if self._settings.fsync == "group":
                self._disk.sync(current.fd)
            else:
                self._unsynced = True
        except OSError as error:
            self._cut_off(current, begin)
            self._refuse(entries, error)
            return
        seconds = self._monotonic() - began
        current.offset, self._records = offset, records
        self.appended_frames += len(entries)
        self.appended_bytes += offset - begin
        if self._settings.fsync == "group":
            self._count_sync(len(entries), offset - begin, seconds)
        logged = "wal" if self._settings.fsync == "group" else "wal-unsynced"
        for entry in entries:
            entry.frame.receipt.logged = logged
        self._publish([entry.frame for entry in entries], offset)
        if self.error:
            log.warning("the log %s can be written again", self._log_id)
            self.error, self.full = "", False

    def _count_sync(self, frames: int, nbytes: int, seconds: float) -> None:
        self.syncs += 1
        self.sync_seconds += seconds
        self._recent_syncs.append(seconds)
        self._observer.log_synced(frames, nbytes, seconds)

    @property
    def sync_p99_s(self) -> float:
        """What of the recent syncs all but one in a hundred took at most (seconds)."""
        recent = sorted(self._recent_syncs)
        return recent[round((len(recent) - 1) * 0.99)] if recent else 0.0

    # --- failures --------------------------------------------------------------------------

    def _refuse(self, entries: list[_Append], error: OSError) -> None:
        """These frames are in no file.  What was acknowledged without waiting stays in memory."""
        first = not (self.error or self._closed)
        if not self._closed:
            self.full = error.errno in _FULL
            self.error = f"{error.strerror or error} ({self._directory})"
            self._retry_at = self._monotonic() + RETRY_S
        kept = []
        for entry in entries:
            frame = entry.frame
            frame.file = frame.offset = -1
            if entry.durable:
                entry.error = error
            else:
                frame.position, self._position = self._position, self._position + 1
                kept.append(frame)
        if first:
            log.error("the log %s cannot be written: %s", self._log_id, self.error)
            self._observer.log_failed(self.error)
        if kept:
            self._publish(kept, 0)

    def _cut_off(self, current: _Open, end: int) -> None:
        """After a failure a file is never synced again: it ends before what failed."""
        self._open = None
        with self._lock:
            current.file.sealed = True
            self._segments.ends[current.file.number] = end
            self._journal.queue(Cut(current.file.number, end))
        try:
            self._disk.truncate(current.fd, end)
        except OSError as error:
            log.warning("the end of %s could not be cut off: %s", current.file.path, error)
        self._disk.close(current.fd)
        try:
            # Synced elsewhere: what was refused must not come back after a power cut.
            self._journal.commit(sync=True)
        except OSError as error:
            log.error("what failed in %s could not be noted: %s", current.file.path, error)

    # --- files -----------------------------------------------------------------------------

    def _room_for(self, entry: _Append) -> _Open:
        """The file for the next frame, a new one if it does not fit into this.  Raises OSError."""
        current = self._open
        if current is not None and current.offset + entry.nbytes <= current.file.size:
            return current
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the log is closed")
        if current is not None:
            self._seal(current)
        size = max(self._settings.segment_bytes, FIRST_OFFSET + entry.nbytes)
        # The keeper makes none meanwhile: it would be the earlier one by number, and used later.
        with self._spare_lock:
            spare, self._spare = self._spare, None
            if spare is not None and spare.file.size < size:
                self._discard(spare)
                spare = None
            fresh = spare or self._make(size)
            with self._lock:
                self._segments.add(fresh.file)
                self.next_file = fresh.file.number + 1
        self._open = fresh
        return fresh

    def _seal(self, current: _Open) -> None:
        """Nothing is appended to a file any more."""
        self._open = None
        if self._unsynced and self._settings.fsync == "interval":
            try:
                self._disk.sync(current.fd)
            except OSError as error:
                log.error("%s could not be synced: %s", current.file.path, error)
            self._unsynced = False
        self._disk.close(current.fd)
        with self._lock:
            current.file.sealed = True

    def prepare(self) -> None:
        """Make the next file ahead, so that no request waits for it; the keeper's part."""
        with self._spare_lock:
            if self._spare is None and not self._closed:
                try:
                    self._spare = self._make(self._settings.segment_bytes)
                except OSError:
                    pass  # whoever needs it will say so

    def _make(self, size: int) -> _Open:
        with self._lock:
            held = self._segments.nbytes
            number = max(self.next_file, *self._segments.numbers, 0)
        if held + size > self._settings.max_bytes:
            raise OSError(
                errno.ENOSPC,
                f"its files take {held} bytes, and max_bytes is {self._settings.max_bytes}",
            )
        path = path_of(self._directory, number)
        try:
            fd = self._disk.create(path, size)
        except FileExistsError:
            with self._lock:
                self.next_file = number + 1
            return self._make(size)
        try:
            self._disk.write(fd, [encode_head(self._log_id, number)], 0)
        except OSError:
            self._disk.close(fd)
            self._disk.unlink(path)
            raise
        return _Open(fd, SegmentFile(number=number, path=path, size=size))

    def _discard(self, spare: _Open) -> None:
        with self._lock:
            self.next_file = max(self.next_file, spare.file.number + 1)
        try:
            self._disk.close(spare.fd)
            self._disk.unlink(spare.file.path)
        except OSError as error:
            log.warning("%s is not needed and could not be removed: %s", spare.file.path, error)

    @property
    def sync_every_s(self) -> float:
        return self._settings.fsync_interval_s

    def sync(self) -> None:
        """Sync what was written without; the keeper's part where `fsync` is "interval"."""
        if self._unsynced and self._settings.fsync == "interval":
            self._group.alone(self._sync_open)

    def _sync_open(self) -> None:
        current = self._open
        if current is None or not self._unsynced:
            return
        began = self._monotonic()
        self._unsynced = False
        try:
            self._disk.sync(current.fd)
        except OSError as error:
            log.error("%s could not be synced: %s", current.file.path, error)
            self._open = None
            with self._lock:
                current.file.sealed = True
            self.error = f"{error.strerror or error} ({self._directory})"
            self._observer.log_failed(self.error)
            self._disk.close(current.fd)
        else:
            self._count_sync(0, 0, self._monotonic() - began)

    def close(self) -> None:
        """Write what is queued, then take nothing more."""
        self.write_queued()
        self._group.alone(self._close)
        self._group.run()  # what came in between is refused, or stays in memory

    def _close(self) -> None:
        self._closed = True
        with self._spare_lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            self._discard(spare)
        if self._open is not None:
            self._seal(self._open)


def _nowhere(frames: Sequence[Frame], end: int) -> None:
    raise RuntimeError("the writer belongs to no log")
