"""The file operations of the log, behind one seam: the kernel's here, a faulty disk's in tests.

Every call may raise OSError.  What `sync` has returned for survives a power cut; what was only
written survives the process.  Nothing is locked: callers own their descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

Buffer = bytes | memoryview

_IOV_MAX = 1024


class Disk:
    """Files by descriptor, written at explicit offsets."""

    def create(self, path: Path, size: int) -> int:
        """A new file of `size` zero bytes, whose room is set aside and whose name is on disk."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
            self.sync_directory(path.parent)
        except BaseException:
            os.close(fd)
            os.unlink(path)
            raise
        return fd

    def open(self, path: Path, *, write: bool = False) -> int:
        """A file that is there.  What is no file, such as a pipe, is refused and not waited for."""
        flags = os.O_RDWR if write else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, f"{path} is not a regular file")
        return fd

    def write(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write all buffers one after the other from `offset`; returns how many bytes."""
        total = 0
        for start in range(0, len(buffers), _IOV_MAX):
            total += self._write_some(fd, buffers[start : start + _IOV_MAX], offset + total)
        return total

    @staticmethod
    def _write_some(fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        wanted = sum(map(len, buffers))
        written = os.pwritev(fd, buffers, offset)
        if written < wanted:
            rest = memoryview(b"".join(buffers))
            while written < wanted:
                more = os.pwrite(fd, rest[written:], offset + written)
                if not more:
                    raise OSError(errno.EIO, "nothing was written, and no error told")
                written += more
        return wanted

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        """Up to `nbytes` from `offset`; fewer only at the end of the file."""
        data = os.pread(fd, nbytes, offset)
        if data and len(data) < nbytes:
            pieces, got = [data], len(data)
            while got < nbytes and (more := os.pread(fd, nbytes - got, offset + got)):
                pieces.append(more)
                got += len(more)
            data = b"".join(pieces)
        return data

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, path: Path, to: Path) -> None:
        os.rename(path, to)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def names(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def sync_directory(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
