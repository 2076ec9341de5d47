"""Appending to a file so that what was appended survives a crash, and what was not leaves no trace.

A failed write is taken back by truncating; after a failed fsync the file is never synced again, as
the kernel may have forgotten which pages were dirty: it is truncated and given up.  Whoever uses it
holds the lock that guards the file.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

OWNER_ONLY = 0o600


class Abandoned(OSError):
    """Nothing more may be appended to the file; open another one."""


def open_locked(path: Path, *, wait: bool) -> int | None:
    """The file, made if need be, with its lock held; None when another has the lock.

    A file that was renamed or removed while waiting for its lock is opened anew.
    """
    while True:
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, OWNER_ONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if same_file(descriptor, path):
                if new:
                    sync_directory(path.parent)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        named, opened = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def append(descriptor: int, data: bytes) -> int:
    """Write and sync; returns the size.  Raises OSError, and then nothing was appended."""
    start = os.fstat(descriptor).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        _take_back(descriptor, start)
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        _take_back(descriptor, start)
        raise Abandoned(error.errno, f"fsync failed: {os.strerror(error.errno or 0)}") from error
    return start + len(data)


def _take_back(descriptor: int, start: int) -> None:
    try:
        os.ftruncate(descriptor, start)
    except OSError as error:
        # What comes next would stand behind half a line.
        raise Abandoned(error.errno, "half a line could not be taken back") from error


def sync_directory(path: Path) -> None:
    """Make names in the directory survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make the directory, for the owner alone, so that it survives a crash."""
    if path.is_dir():
        return
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    sync_directory(path.parent)
