"""A disk that fails: the log's file operations in memory, with a crash point at each of them.

What the log writes is kept here, what it reads comes from here; directories and locks, which the
log makes by itself, are real ones.  Two ways to crash: a `kill` leaves all that was written, a
power cut only what was synced, and of the rest what chance says: a write may survive, vanish, or
tear at any byte or page; a name that was made, changed or removed may be as it was before, unless
its directory was synced.  After a failed sync nobody knows what of the file is on the disk, and a
later sync does not tell, as with Linux.  One lock guards everything.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from pipeline.log.disk import Buffer, Disk

PAGE = 4096

WRITING = ("create", "write", "sync", "truncate", "rename", "unlink", "sync_directory")


class Crash(BaseException):
    """The process ends here: no handler of the code under test is meant to catch it."""


class _File:
    """`data` as the process sees it, `kept` as the disk has it, and the writes in between."""

    __slots__ = ("data", "kept", "pending")

    def __init__(self) -> None:
        self.data = bytearray()
        self.kept = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # an offset, and None to cut off there

    def write(self, offset: int, data: bytes | None) -> None:
        self.pending.append((offset, data))
        _apply(self.data, offset, data)

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.kept, offset, data)
        self.pending.clear()

    def lose(self, random: Random) -> None:
        """Of the writes that were not synced, some are on the disk and the others never will be."""
        for offset, data in self.pending:
            if data is None:
                if random.random() < 0.5:
                    _apply(self.kept, offset, None)
                continue
            for start, piece in _survivors(offset, data, random):
                _apply(self.kept, start, piece)
        self.pending.clear()


def _apply(to: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del to[offset:]
        return
    if len(to) < offset:
        to.extend(bytes(offset - len(to)))
    to[offset : offset + len(data)] = data


def _survivors(offset: int, data: bytes, random: Random) -> list[tuple[int, bytes]]:
    """What of a write that was not synced is on the disk."""
    match random.choice(("all", "none", "torn", "pages")):
        case "all":
            return [(offset, data)]
        case "none":
            return []
        case "torn":
            return [(offset, data[: random.randint(0, len(data))])]
        case _:
            pieces, start = [], 0
            while start < len(data):
                stop = min(start + PAGE - (offset + start) % PAGE, len(data))
                if random.random() < 0.5:
                    pieces.append((offset + start, data[start:stop]))
                start = stop
            return pieces


class FaultyDisk(Disk):
    """See the module's text; `capacity` bounds what all files together may take."""

    def __init__(self, *, capacity: int = 1 << 40) -> None:
        self._lock = threading.RLock()
        self._random = Random(0)
        self._next_fd = 1_000_000
        self._open: dict[int, _File] = {}
        self._files: dict[Path, _File] = {}
        self._kept: dict[Path, _File] = {}
        self._names: list[tuple[str, Path, Path | None, _File]] = []  # not synced yet
        self._errors: dict[str, tuple[int, int]] = {}
        self.capacity = capacity
        self.points = 0
        self.crash_at: int | None = None
        self.crashed = False
        self.calls: Counter[str] = Counter()
        # Called before each operation that writes, to hold it up.
        self.before: Callable[[str, Path | None], None] = lambda what, path: None

    # --- what tests do ---------------------------------------------------------------------

    def fail(self, what: str, error: int, *, times: int = 1 << 40) -> None:
        """Let an operation fail with this errno, so many times."""
        self._errors[what] = (error, times)

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._errors.clear()
        self.capacity = 1 << 40

    def crash_after(self, points: int) -> None:
        """Crash at the next operation but so many."""
        self.crash_at = self.points + points + 1

    def crash(self, random: Random, *, power: bool) -> None:
        """What the next process finds; every descriptor is gone."""
        with self._lock:
            if power:
                self._cut_power(random)
            for file in set(self._files.values()):
                file.sync()
            self._kept = dict(self._files)
            self._names.clear()
            self._open.clear()
            self._errors.clear()
            self.crashed, self.crash_at = False, None

    def _cut_power(self, random: Random) -> None:
        for what, path, to, file in self._names:
            if random.random() < 0.5:
                _rename(self._kept, what, path, to, file)
        self._files = dict(self._kept)
        for file in set(self._files.values()):
            file.lose(random)
            file.data = bytearray(file.kept)

    def content(self, path: Path) -> bytes:
        return bytes(self._files[path].data)

    def synced(self, path: Path) -> bytes:
        """What of a file survives a power cut for certain."""
        with self._lock:
            return bytes(self._kept[path].kept) if path in self._kept else b""

    def damage(self, path: Path, offset: int, data: bytes) -> None:
        """Other bytes in a file, on the disk itself."""
        file = self._files[path]
        _apply(file.data, offset, data)
        _apply(file.kept, offset, data)

    def paths(self) -> list[Path]:
        return sorted(self._files)

    @property
    def open_files(self) -> int:
        return len(self._open)

    # --- the seam --------------------------------------------------------------------------

    def _step(self, what: str, path: Path | None = None) -> bool:
        """Count an operation; returns whether the crash strikes in its middle."""
        if self.crashed:
            raise Crash(what)
        self.points += 1
        self.calls[what] += 1
        if self.crash_at is not None and self.points >= self.crash_at:
            self.crashed = True
            return True
        error, times = self._errors.get(what, (0, 0))
        if times:
            self._errors[what] = (error, times - 1)
            if what == "sync":
                raise _SyncFailed(error, os.strerror(error))
            raise OSError(error, os.strerror(error))
        return False

    def create(self, path: Path, size: int) -> int:
        self.before("create", path)
        with self._lock:
            strikes = self._step("create", path)
            if path in self._files:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            if sum(len(file.data) for file in self._files.values()) + size > self.capacity:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if not path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            file = self._files[path] = _File()
            self._names.append(("link", path, None, file))
            file.data.extend(bytes(size))
            if strikes:
                raise Crash("create")
            file.kept = bytearray(size)
            self._sync_names(path.parent)
            return self._descriptor(file)

    def _descriptor(self, file: _File) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = file
        return self._next_fd

    def open(self, path: Path, *, write: bool = False) -> int:
        with self._lock:
            if self.crashed:
                raise Crash("open")
            if path not in self._files:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return self._descriptor(self._files[path])

    def _file(self, fd: int) -> _File:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd]

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        self.before("write", None)
        with self._lock:
            file, data = self._file(fd), b"".join(buffers)
            try:
                strikes = self._step("write")
            except OSError:
                file.write(offset, data[: len(data) // 2])
                raise
            file.write(offset, data)
            if strikes:
                raise Crash("write")
            return len(data)

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        with self._lock:
            if self.crashed:
                raise Crash("read")
            error, times = self._errors.get("read", (0, 0))
            if times:
                self._errors["read"] = (error, times - 1)
                raise OSError(error, os.strerror(error))
            return bytes(self._file(fd).data[offset : offset + nbytes])

    def size(self, fd: int) -> int:
        with self._lock:
            return len(self._file(fd).data)

    def sync(self, fd: int) -> None:
        self.before("sync", None)
        with self._lock:
            file = self._file(fd)
            try:
                strikes = self._step("sync")
            except _SyncFailed as error:
                file.lose(self._random)
                raise OSError(*error.args) from None
            if strikes:
                raise Crash("sync")
            file.sync()

    def truncate(self, fd: int, size: int) -> None:
        self.before("truncate", None)
        with self._lock:
            file = self._file(fd)
            strikes = self._step("truncate")
            file.write(size, None)
            if strikes:
                raise Crash("truncate")

    def close(self, fd: int) -> None:
        with self._lock:
            self._file(fd)
            del self._open[fd]

    def rename(self, path: Path, to: Path) -> None:
        self.before("rename", path)
        with self._lock:
            strikes = self._step("rename", path)
            file = self._files.pop(path)
            self._files[to] = file
            self._names.append(("rename", path, to, file))
            if strikes:
                raise Crash("rename")

    def unlink(self, path: Path) -> None:
        self.before("unlink", path)
        with self._lock:
            if path not in self._files:
                if self.crashed:
                    raise Crash("unlink")
                os.unlink(path)
                return
            strikes = self._step("unlink", path)
            self._names.append(("unlink", path, None, self._files.pop(path)))
            if strikes:
                raise Crash("unlink")

    def names(self, directory: Path) -> list[str]:
        with self._lock:
            if self.crashed:
                raise Crash("names")
            mine = {path.name for path in self._files if path.parent == directory}
            return sorted(mine | set(os.listdir(directory)))

    def sync_directory(self, directory: Path) -> None:
        self.before("sync_directory", directory)
        with self._lock:
            if self._step("sync_directory", directory):
                raise Crash("sync_directory")
            self._sync_names(directory)

    def _sync_names(self, directory: Path) -> None:
        for what, path, to, file in self._names:
            if path.parent == directory:
                _rename(self._kept, what, path, to, file)
        self._names = [one for one in self._names if one[1].parent != directory]


class _SyncFailed(OSError):
    pass


def _rename(names: dict[Path, _File], what: str, path: Path, to: Path | None, file: _File) -> None:
    if what == "link":
        names[path] = file
    elif what == "unlink":
        names.pop(path, None)
    else:
        assert to is not None
        names.pop(path, None)
        names[to] = file
