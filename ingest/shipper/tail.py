"""Owns: one log file's lines in order, across renames, truncation and restarts.

Runs on the shipper's thread; no locks. At most one batch and one line are held in memory.
A file is known by device and inode. When its name has come to mean another file, the old one is
read to its end first (it is still open), then the new one from its start.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ingest.shipper.lines import Line, LineCutter
from ingest.shipper.state import PREFIX_BYTES, Position

_CHUNK = 256 * 1024


class NotAFile(Exception):
    """Only regular files have a place that can be remembered."""


class Tail:
    def __init__(
        self,
        path: Path,
        *,
        position: Position | None,
        max_line_bytes: int,
        warn: Callable[[str], None],
        from_end: bool = False,
    ) -> None:
        self.path = path
        self._max_line_bytes = max_line_bytes
        self._warn = warn
        self._descriptor = -1
        self._identity = (0, 0)
        self._prefix = b""
        self._cutter = LineCutter(offset=0, max_line_bytes=max_line_bytes)
        self._ready: deque[Line] = deque()
        self._older: list[Path] = []  # rotated away while nobody was reading; newest first
        self._returned_to = 0
        self._idle_looks = 0
        self._missing_said = False
        self._found_bytes = False
        self.truncations = 0
        if position is not None:
            self._resume(position)
        else:
            self._open(path, at_end=from_end)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once; a long line takes several looks."""
        return bool(self._ready) or self._found_bytes

    @property
    def start(self) -> Position | None:
        """Where the open file is read from next; None while there is no file."""
        if self._descriptor < 0:
            return None
        return self.at(self._returned_to)

    def at(self, offset: int) -> Position:
        """The place after a line of the open file."""
        prefix = self._prefix[:offset]
        return Position(
            device=self._identity[0],
            inode=self._identity[1],
            offset=offset,
            prefix_length=len(prefix),
            prefix_crc=zlib.crc32(prefix),
        )

    def read(
        self, *, max_lines: int, max_bytes: int, to_the_end: bool, stay: bool = False
    ) -> list[Line]:
        """Lines of one file; none when there is nothing new, or (`behind`) no whole line yet.

        `to_the_end`: the file will not grow, so that an unfinished last line is a line.
        `stay`: go on in the file of the last line only.
        """
        lines: list[Line] = []
        size = 0
        while len(lines) < max_lines and size < max_bytes:
            may_move = not (lines or stay)
            if not self._ready and not self._fill(to_the_end=to_the_end, may_move=may_move):
                break
            line = self._ready[0]
            if (lines or stay) and size + len(line.data) > max_bytes:
                break
            lines.append(self._ready.popleft())
            self._returned_to = line.end
            size += len(line.data) + 1
        return lines

    # -- reading ---------------------------------------------------------------------------

    def _fill(self, *, to_the_end: bool, may_move: bool) -> bool:
        """Get at least one line ready. `may_move`: go on to another file when this one is done."""
        self._found_bytes = False
        if self._descriptor < 0 and not (may_move and self._open(self.path)):
            return False
        if not self._look_for_truncation(may_restart=may_move):
            return False
        chunk = os.pread(self._descriptor, _CHUNK, self._cutter.read_to)
        if chunk:
            self._found_bytes = True
            self._idle_looks = 0
            self._ready.extend(self._cutter.feed(chunk))
            return bool(self._ready)
        replaced = bool(self._older) or self._is_replaced()
        # The writer may hold a renamed file open a little longer: look at it twice.
        self._idle_looks = self._idle_looks + 1 if replaced else 0
        over = replaced and (to_the_end or self._idle_looks >= 2)
        if self._cutter.unfinished and (over or (to_the_end and not replaced)):
            self._ready.append(self._cutter.finish())
            return True
        if not over or not may_move:
            return False
        self.close()
        following = self._older.pop() if self._older else self.path
        return self._open(following) and self._fill(to_the_end=to_the_end, may_move=may_move)

    def _look_for_truncation(self, *, may_restart: bool) -> bool:
        """Whether the file is still the one that was read so far, or may be read anew."""
        size = os.fstat(self._descriptor).st_size
        start = os.pread(self._descriptor, PREFIX_BYTES, 0)
        if size >= self._cutter.read_to and start.startswith(self._prefix):
            self._prefix = start
            return True
        if not may_restart:
            return False
        self._warn(
            f"{self.path} was truncated at byte {self._cutter.read_to:,} or before; reading from "
            "its start. What was written between the last look and then is not read."
        )
        self.truncations += 1
        self._begin(0, start)
        return True

    def _begin(self, offset: int, prefix: bytes) -> None:
        self._prefix = prefix
        self._cutter = LineCutter(offset=offset, max_line_bytes=self._max_line_bytes)
        self._ready.clear()
        self._returned_to = offset
        self._idle_looks = 0

    # -- which file ------------------------------------------------------------------------

    def _open(self, path: Path, *, offset: int = 0, at_end: bool = False) -> bool:
        try:
            # Not to hang for ever on a pipe that somebody gave as a file.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            if not self._missing_said:
                self._warn(f"{path} does not exist (yet)")
                self._missing_said = True
            return False
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise NotAFile(f"{path} is not a regular file")
        self.close()
        self._missing_said = False
        self._descriptor = descriptor
        self._identity = (status.st_dev, status.st_ino)
        self._begin(status.st_size if at_end else offset, os.pread(descriptor, PREFIX_BYTES, 0))
        return True

    def _is_replaced(self) -> bool:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False  # renamed, and the new one is not there yet
        return (status.st_dev, status.st_ino) != self._identity

    def _resume(self, position: Position) -> None:
        if self._open_if_same(self.path, position):
            return
        siblings = [entry for entry in self._siblings() if entry != self.path]
        for index, sibling in enumerate(siblings):
            if self._open_if_same(sibling, position):
                self._older = siblings[:index]  # rotated after it: to be read before the new one
                return
        if self._open(self.path):
            self._warn(
                f"{self.path} is not the file that was read last, which is gone (rotated and "
                "removed or compressed?); reading the new one from its start."
            )

    def _open_if_same(self, path: Path, position: Position) -> bool:
        if not self._open(path, offset=position.offset):
            return False
        same = (
            self._identity == (position.device, position.inode)
            and position.matches_prefix(self._descriptor)
            and os.fstat(self._descriptor).st_size >= position.offset
        )
        if not same:
            self.close()
        return same

    def _siblings(self) -> list[Path]:
        """What rotation made of this name, newest first."""
        found = []
        for entry in self.path.parent.glob(f"{_escape(self.path.name)}[.-]*"):
            try:
                if entry.is_file() and entry.suffix not in (".gz", ".xz", ".zst", ".bz2"):
                    found.append((entry.stat().st_mtime_ns, entry))
            except OSError:
                continue  # rotation is under way; it is found under its next name or not at all
        return [entry for _, entry in sorted(found, reverse=True)]


def _escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
