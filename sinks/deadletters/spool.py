"""Letters that wait in files for the control database: synced when `append` returns.

`<data_dir>/deadletters/spool/<random>.spool`, one letter a line: the CRC of the rest in eight hex
digits, a space, the letter as JSON.  A file is locked by the process that appends to it, so that
one that can be locked is complete and may be taken: by the importer of any process.  A torn last
line was never acknowledged.

Called by worker threads and the importer's; `_lock` guards the open file.
"""

from __future__ import annotations

import os
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import deadletter
from sinks.deadletters import appendfile

SUFFIX = ".spool"
MAX_FILE_BYTES = 8 * 1024 * 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(deadletter.DeadLetter).decode


@dataclass(slots=True)
class Content:
    """What a spool file holds; `bad` are lines that are not what was written."""

    letters: list[deadletter.DeadLetter] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)
    torn: bytes = b""


class Spool:
    def __init__(self, directory: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self.directory = directory
        self._max_file_bytes = max_file_bytes
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._pid = os.getpid()

    def append(self, letters: Sequence[deadletter.DeadLetter]) -> None:
        """Keep the letters until they are imported.  Raises OSError: then none of them is kept."""
        data = b"".join(map(line_of, letters))
        with self._lock:
            descriptor = self._open()
            try:
                size = appendfile.append(descriptor, data)
            except appendfile.Abandoned:
                self._close()
                raise
            if size >= self._max_file_bytes:
                self._close()

    def seal(self) -> None:
        """Let go of the file that is being appended to, so that it can be imported."""
        with self._lock:
            self._close()

    def files(self) -> list[Path]:
        """Every file of the spool, those in use included."""
        try:
            return sorted(self.directory.glob(f"*{SUFFIX}"))
        except OSError:
            return []

    @contextmanager
    def taken(self, path: Path) -> Iterator[Content | None]:
        """The content of a file that nobody else has; None when somebody has.

        The file goes when the block ends without an exception.
        """
        if not path.exists():
            yield None
            return
        descriptor = appendfile.open_locked(path, wait=False)
        if descriptor is None:
            yield None
            return
        try:
            yield read(path.read_bytes())
            path.unlink()
            appendfile.sync_directory(path.parent)
        finally:
            os.close(descriptor)

    def after_fork(self) -> None:
        """The parent's file is the parent's."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
        self._reset()

    def _open(self) -> int:
        """Called with `_lock` held."""
        if self._descriptor is None:
            appendfile.make_directory(self.directory)
            path = self.directory / f"{uuid.uuid4().hex}{SUFFIX}"
            self._descriptor = appendfile.open_locked(path, wait=True)
        assert self._descriptor is not None
        return self._descriptor

    def _close(self) -> None:
        """Called with `_lock` held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def line_of(letter: deadletter.DeadLetter) -> bytes:
    """The letter as one line with its CRC."""
    error = letter.error.encode("utf-8", "backslashreplace").decode()
    body = _encode(msgspec.structs.replace(letter, error=error))
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read(data: bytes) -> Content:
    """The letters of a file, with what could not be read."""
    found = Content()
    lines = data.split(b"\n")
    found.torn = lines.pop()
    for line in lines:
        try:
            crc, body = int(line[:8], 16), line[9:]
            if zlib.crc32(body) != crc:
                raise ValueError("another CRC")
            found.letters.append(_decode(body))
        except (ValueError, msgspec.DecodeError):
            found.bad.append(line)
    return found
