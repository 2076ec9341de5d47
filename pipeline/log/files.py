"""The files of one log: its segments, its journal, its lock, wired together.

    <directory>/<log id>/lock             flock while a process owns the log
                         segment-*.seg    frames, in the order of their numbers
                         checkpoint.0 .1  the state at one moment, by turns
                         journal.0 .1     what happened since

The log's lock guards `segments`; the journal and the writer have their own text.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from pipeline.errors import LogUnavailable
from pipeline.log.disk import Disk
from pipeline.log.frame import Frame
from pipeline.log.journal import Journal, Snapshot
from pipeline.log.quarantine import Quarantine
from pipeline.log.scan import Damage
from pipeline.log.segmentfile import Place, SegmentFiles, number_of
from pipeline.log.settings import LogSettings
from pipeline.log.writer import Publish, SegmentWriter
from pipeline.observer import Observer

log = logging.getLogger(__name__)

LOCK = "lock"
# Of `max_bytes`: above it, optional sinks that lag let go of the oldest file.
CROWDED = 0.9


class Owned:
    """A log's directory, locked: by this process and, as the kernel forgets it, by no dead one."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def take(cls, path: Path) -> Owned | None:
        """Lock a log's directory; None while another process has it.  Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        fd = os.open(path / LOCK, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(fd), os.stat(path / LOCK)):
                raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile", str(path / LOCK))
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd)

    def release(self) -> None:
        """Let another process have it; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _new_directory(root: Path, log_id: str) -> Owned:
    """The directory of a new log, which is locked before others can see it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = root / f".{log_id}"
    hidden.mkdir(mode=0o700)
    owned = None
    try:
        owned = Owned.take(hidden)
        assert owned is not None, "nobody looks into hidden directories"
        os.rename(hidden, root / log_id)
    except BaseException:
        # A full disk may have room for the directory alone, and every try would leave one.
        shutil.rmtree(hidden, ignore_errors=True)
        if owned is not None:
            owned.release()
        raise
    owned.path = root / log_id
    return owned


class LogFiles:
    """What a `Log` keeps on disk.  Without a writer nothing is appended: it was adopted."""

    def __init__(
        self,
        *,
        owned: Owned,
        disk: Disk,
        segments: SegmentFiles,
        journal: Journal,
        quarantine: Quarantine,
        settings: LogSettings,
        next_file: int = 1,
    ) -> None:
        self.owned = owned
        self.disk = disk
        self.segments = segments
        self.journal = journal
        self.quarantine = quarantine
        self.settings = settings
        self.writer: SegmentWriter | None = None
        self._next_file = next_file
        self._lock = threading.Lock()
        self._checkpointing = threading.Lock()
        self._deletable = False
        self._closed = False

    @classmethod
    def create(
        cls, *, log_id: str, settings: LogSettings, disk: Disk | None = None, observer: Observer
    ) -> LogFiles:
        """The files of a new log.  Raises OSError."""
        disk = disk or Disk()
        owned = _new_directory(settings.directory, log_id)
        path = owned.path
        journal = Journal(disk=disk, directory=path, durable=settings.fsync != "never")
        files = cls(
            owned=owned,
            disk=disk,
            segments=SegmentFiles(),
            journal=journal,
            quarantine=Quarantine(settings.directory, log_id, disk),
            settings=settings,
        )
        files.writer = SegmentWriter(
            log_id=log_id,
            directory=path,
            disk=disk,
            settings=settings,
            segments=files.segments,
            journal=journal,
            observer=observer,
        )
        try:
            journal.create()
            disk.sync_directory(settings.directory)
        except BaseException:
            files.close(remove=True)
            raise
        return files

    @property
    def directory(self) -> Path:
        return self.owned.path

    @property
    def next_file(self) -> int:
        return self.writer.next_file if self.writer is not None else self._next_file

    def bind(self, lock: threading.Lock, *, publish: Publish, snapshot: Snapshot) -> None:
        """Give the files the log's lock, and what they ask of it."""
        self._lock = lock
        self.journal.bind(lock, snapshot)
        if self.writer is not None:
            self.writer.bind(lock, publish)

    @property
    def closed(self) -> bool:
        return self._closed

    def refusal(self) -> LogUnavailable | None:
        """Why nothing can be appended at this moment."""
        return self.writer.refusal() if self.writer is not None else None

    def append(self, frame: Frame, *, durable: bool) -> None:
        """See `SegmentWriter.append`."""
        assert self.writer is not None, "an adopted log takes nothing new"
        self.writer.append(frame, durable=durable)

    def settled(self, number: int, records: int) -> None:
        """Records of a file have ended; the log's lock is held."""
        if self.segments.settle(number, records):
            self._deletable = True

    def damaged(self, place: Place, damage: Damage) -> None:
        """Something in a file is no sound frame."""
        with self._lock:
            file = self.segments.get(place.file)
        if file is not None:
            self.quarantine.keep(file.path, damage)

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint would free files or room in the journal."""
        return self._deletable or self.journal.nearly_full

    def crowded(self) -> int | None:
        """The first file that is awaited, when all files take nearly what they may."""
        with self._lock:
            if self.segments.nbytes < CROWDED * self.settings.max_bytes:
                return None
            return self.segments.oldest_owed

    def checkpoint(self) -> None:
        """Write the state, then delete the files of which nothing is awaited.  Raises OSError.

        In this order: a file that is gone is in no checkpoint, and one that a crash left behind is
        known not to be in it.
        """
        with self._checkpointing:
            with self._lock:
                gone = self.segments.take_settled()
                self._deletable = False
            try:
                self.journal.checkpoint()
            except OSError:
                with self._lock:
                    self.segments.put_back(gone)
                    self._deletable = bool(gone)
                raise
            for file in gone:
                self._unlink(file.path)
            with self._lock:
                self.segments.forget_ends(gone)

    def _unlink(self, path: Path) -> None:
        try:
            self.disk.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s is not needed any more and cannot be deleted: %s", path, error)

    def seal(self) -> None:
        """Append nothing more; what is on its way is in the files, or refused, after this."""
        if self.writer is not None:
            self.writer.close()

    def close(self, *, remove: bool) -> None:
        """Close all files, delete them with `remove`, and let go of the lock."""
        if self._closed:
            return
        self._closed = True
        try:
            if self.writer is not None:
                self.writer.close()
            self.journal.close()
            if remove:
                self._remove()
        finally:
            self.owned.release()

    def _remove(self) -> None:
        """What tells that all has settled goes after what has; a crash may come in between.

        The lock goes last: who waits for it finds a directory that is complete, or none.
        """
        try:
            ours = ("checkpoint.", "journal.")
            names = [
                name
                for name in self.disk.names(self.directory)
                if number_of(name) is not None or name.startswith(ours)
            ]
            for stage in (
                [name for name in names if number_of(name) is not None],
                [name for name in names if name != self.journal.newest],
                names,
            ):
                for name in stage:
                    self._unlink(self.directory / name)
                self.disk.sync_directory(self.directory)
            self._unlink(self.directory / LOCK)
            os.rmdir(self.directory)
        except OSError as error:
            log.warning("the settled log %s cannot be removed: %s", self.directory, error)

    def stats(self) -> dict[str, Any]:
        """Figures of the files, as plain JSON values."""
        with self._lock:
            figures: dict[str, Any] = {
                "directory": str(self.directory),
                "fsync": self.settings.fsync,
                "segments": len(self.segments),
                "bytes": self.segments.nbytes,
            }
        figures |= self.quarantine.stats()
        writer = self.writer
        if writer is not None:
            figures |= {
                "state": writer.state,
                "error": writer.error,
                "appended_frames": writer.appended_frames,
                "appended_bytes": writer.appended_bytes,
                "fsyncs": writer.syncs,
                "fsync_seconds_sum": writer.sync_seconds,
                "fsync_p99_s": writer.sync_p99_s,
            }
        return figures
