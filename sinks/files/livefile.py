"""One file that is being appended to: whole batches, rotation by rename, syncs.

Several threads and processes may append to the same path.  `_lock` keeps this process's threads
apart, `flock` the processes: under both, the writer looks whether the path still names its file
(another process may have rotated it), and appends with one write.  A write that fails half-way is
cut off again, so that no line is torn; a torn line left by a crash is ended before the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.runtime.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePolicy:
    """When a file is rotated and synced; 0 means never."""

    rotate_bytes: int
    rotate_age_s: float
    sync_each: bool
    sync_on_close: bool
    lines: bool
    """The content is lines, so that a torn end can be seen; compressed content is not."""


class LiveFile:
    """The file at `path`; opened by the first append."""

    def __init__(self, *, path: Path, policy: FilePolicy, clock: Clock) -> None:
        self.path = path
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._began_s = clock.monotonic()
        self._used_s = clock.monotonic()
        self._dirty = False
        self._evicted = False

    def append(self, data: bytes) -> None:
        """Add `data`, all or nothing.  Raises OSError."""
        with self._lock:
            self._used_s = self._clock.monotonic()
            try:
                fd = self._locked()
                try:
                    self._append(fd, data)
                finally:
                    self._unlock()
            finally:
                if self._evicted:
                    self._close()

    def tend(self, *, idle_s: float, sync: bool) -> None:
        """Between writes: sync, rotate when too old, close when unused.  Raises OSError."""
        with self._lock:
            if self._fd is None:
                return
            if sync and self._dirty:
                self._dirty = False
                os.fdatasync(self._fd)
            if self._too_old():
                self._locked()
                try:
                    if os.fstat(self._require()).st_size:
                        self._rotate()
                finally:
                    self._unlock()
            if self._clock.monotonic() - self._used_s >= idle_s:
                self._close()

    def rotate(self) -> None:
        """Put the content aside now.  Raises OSError."""
        with self._lock:
            self._locked()
            try:
                if os.fstat(self._require()).st_size:
                    self._rotate()
            finally:
                self._unlock()

    def close(self, *, evicted: bool = False) -> None:
        """Sync as the policy says and let go; a later append opens it again."""
        with self._lock:
            self._evicted = self._evicted or evicted
            self._close()

    # --- under the lock --------------------------------------------------------------------

    def _append(self, fd: int, data: bytes) -> None:
        size = os.fstat(fd).st_size
        most = self._policy.rotate_bytes
        if size and ((most and size + len(data) > most) or self._too_old()):
            self._rotate()
            fd, size = self._locked(), 0
        if size and self._policy.lines and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            self._dirty = True
        except OSError:
            os.ftruncate(fd, size)
            raise
        if self._policy.sync_each:
            self._sync_or_set_aside(fd, size)

    def _sync_or_set_aside(self, fd: int, size: int) -> None:
        try:
            os.fdatasync(fd)
            self._dirty = False
        except OSError:
            # A later sync of this file could succeed without the pages that failed now.
            os.ftruncate(fd, size)
            self._dirty = False
            if size:
                self._rotate()
            else:
                self.path.unlink()
                self._close()
            raise

    def _locked(self) -> int:
        """The open file that the path names, locked against other processes."""
        while True:
            fd = self._fd if self._fd is not None else self._open()
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                named = os.stat(self.path)
            except FileNotFoundError:
                named = None
            mine = os.fstat(fd)
            if named is not None and (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino):
                return fd
            self._close()

    def _unlock(self) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o640)
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            fd = os.open(self.path, flags, 0o640)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file")
        self._fd = fd
        self._began_s = self._clock.monotonic()
        return fd

    def _rotate(self) -> None:
        """Rename the file, whose lock is held, to a name with the time, and forget it."""
        if self._policy.sync_on_close and self._dirty:
            os.fdatasync(self._require())
        self._dirty = False
        at = datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)
        suffixes = "".join(
            self.path.suffixes[-2:] if self.path.suffix == ".gz" else [self.path.suffix]
        )
        stem = self.path.name.removesuffix(suffixes)
        base, count = f"{stem}.{at:%Y%m%dT%H%M%S}", 0
        while True:
            count += 1
            aside = self.path.with_name(f"{base}.{count:03d}{suffixes}")
            if not aside.exists():  # only who holds the named file's lock makes such names
                break
        self.path.rename(aside)
        _sync_directory(self.path.parent, wanted=self._policy.sync_on_close)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            if self._dirty and self._policy.sync_on_close:
                os.fdatasync(fd)
        finally:
            self._dirty = False
            os.close(fd)

    def _too_old(self) -> bool:
        age = self._policy.rotate_age_s
        return bool(age) and self._clock.monotonic() - self._began_s >= age

    def _require(self) -> int:
        assert self._fd is not None
        return self._fd


def _sync_directory(directory: Path, *, wanted: bool) -> None:
    if not wanted:
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
