"""The data directory's side of record-id numbers: who holds it, which numbers, which are in use.

    nodes/holder      this data directory's random name; a copy of it gets one of its own
    nodes/0007.lock   locked (flock) as long as the process lives that makes ids with number 7
    nodes/0007.json   until when ids of number 7 may have been given, and until when it is leased

Files are replaced whole. Only the process that holds a number's lock writes the number's file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

import msgspec


class NodeFile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a number without a database; times are microseconds since 1970."""

    number: int
    holder: str
    reserved_until_us: int
    leased_until_us: int
    provisional: bool = False


class NumberLock:
    """An advisory lock on a number. It ends with the process, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class NodeFiles:
    def __init__(self, *, data_dir: Path) -> None:
        self._folder = data_dir / "nodes"
        self._holder = ""

    @property
    def holder(self) -> str:
        """This data directory's name, made on first use."""
        if not self._holder:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._holder = self._read_holder() or self._make_holder()
        return self._holder

    def lock(self, number: int) -> NumberLock | None:
        """Take the number for this process; None when a living process has it."""
        path = self._folder / f"{number:04d}.lock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return NumberLock(descriptor)

    def known(self) -> list[NodeFile]:
        """The numbers this data directory has used, leased ones first; damaged files left out."""
        found = []
        for path in sorted(self._folder.glob("[0-9]*.json")):
            file = self._read(path)
            if file is not None and file.holder == self.holder:
                found.append(file)
        return sorted(found, key=lambda file: (file.provisional, file.number))

    def read(self, number: int) -> NodeFile | None:
        file = self._read(self._folder / f"{number:04d}.json")
        return file if file is not None and file.holder == self.holder else None

    def write(self, file: NodeFile) -> None:
        """Replace the number's file; on return it survives a power cut."""
        path = self._folder / f"{file.number:04d}.json"
        partial = path.with_suffix(".part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(file))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)

    def forget(self, number: int) -> None:
        (self._folder / f"{number:04d}.json").unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> NodeFile | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=NodeFile)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _read_holder(self) -> str:
        path = self._folder / "holder"
        try:
            name, _, inode = path.read_text(encoding="ascii").strip().partition(" ")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        # A copied directory has another inode here, and must not use the original's numbers.
        if not name or inode != str(path.stat().st_ino):
            path.unlink(missing_ok=True)
            return ""
        return name

    def _make_holder(self) -> str:
        name = secrets.token_hex(16)
        partial = self._folder / f"holder.{name}"
        with partial.open("x", encoding="ascii") as file:
            file.write(f"{name} {os.fstat(file.fileno()).st_ino}")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where another process was first; then its name is the one.
        with contextlib.suppress(FileExistsError):
            os.link(partial, self._folder / "holder")
        partial.unlink()
        return self._read_holder() or self._make_holder()
