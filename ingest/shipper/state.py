"""Owns: how far each file was sent, in a file of its own that a crash cannot tear.

Written by the shipper's thread after an acknowledgement, never before. A lock file keeps a second
shipper away from the same file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

PREFIX_BYTES = 256


class StateError(Exception):
    """The state cannot be used; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a file. The inode names it through renames; as inodes are used again, the
    checksum of its first bytes tells whether it is still the same file."""

    device: int
    inode: int
    offset: int
    prefix_length: int = 0
    prefix_crc: int = 0

    def matches_prefix(self, descriptor: int) -> bool:
        prefix = os.pread(descriptor, self.prefix_length, 0)
        return len(prefix) == self.prefix_length and zlib.crc32(prefix) == self.prefix_crc


class StateFile:
    def __init__(self, directory: Path, path: Path) -> None:
        self._source = path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        self._directory = directory
        self._file = directory / f"{path.name[:100]}-{digest}.json"
        self._lock: IO[str] | None = None

    @property
    def path(self) -> Path:
        return self._file

    def acquire(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self._file.with_suffix(".lock"), "w")  # noqa: SIM115 - held on
        except OSError as error:
            raise StateError(f"cannot write to {self._directory}: {error}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise StateError(f"another `ship` is already sending {self._source}") from None

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self) -> Position | None:
        try:
            fields = json.loads(self._file.read_text())
            return Position(**{name: int(fields[name]) for name in Position.__annotations__})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{self._file} cannot be read ({error}). It says how far {self._source} was sent: "
                "delete it to send the file again from its start."
            ) from None

    def save(self, position: Position) -> None:
        text = json.dumps({"path": str(self._source), **asdict(position)})
        temporary = self._file.with_suffix(".tmp")
        try:
            with open(temporary, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StateError(
                f"cannot remember how far {self._source} was sent, in {self._file}: {error}"
            ) from None
