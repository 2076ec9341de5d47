"""Letters of one sink in a file of NDJSON, for sinks whose letters somebody else looks after.

`<data_dir>/deadletters/<sink>-<id>.ndjson`, readable by the owner alone, synced before `put`
returns.  Several processes append to it in turn, under the file's lock; a full one is renamed with
the time and never deleted.  A letter is written once per file: what others appended is read first.

Called by worker threads; `_lock` guards what is known of the file.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline import deadletter
from sinks.deadletters import appendfile
from sinks.deadletters.letters import by_sink, readable_line

ROTATE_BYTES = 64 * 1024 * 1024
_UNSAFE = re.compile(r"[^\w.-]+")
# The encoder writes fields in their order, so that these two begin each line.
_RECORD_ID = re.compile(rb'(?m)^\{"sink":"[^"]*","sink_name":"(?:[^"\\]|\\.)*","record_id":(\d+),')
_READ_BYTES = 1024 * 1024


class FileBox:
    """The box of one sink.  `directory` is made when the first letter comes."""

    def __init__(
        self, *, directory: Path, sink: str, sink_name: str, rotate_bytes: int = ROTATE_BYTES
    ):
        # Names that differ only in unsafe characters must not share a file.
        self.path = directory / f"{_UNSAFE.sub('_', sink_name)}-{_UNSAFE.sub('_', sink)[:8]}.ndjson"
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        self._inode = 0
        self._read_up_to = 0
        self._known: set[int] = set()

    def put(self, letters: Sequence[deadletter.DeadLetter]) -> None:
        with self._lock:
            appendfile.make_directory(self.path.parent)
            descriptor = appendfile.open_locked(self.path, wait=True)
            assert descriptor is not None
            try:
                self._append(descriptor, letters)
            finally:
                os.close(descriptor)

    def _append(self, descriptor: int, letters: Sequence[deadletter.DeadLetter]) -> None:
        self._catch_up(descriptor)
        fresh = [
            letter
            for group in by_sink(letters).values()
            for letter in group
            if letter.origin or letter.record_id not in self._known
        ]
        if not fresh:
            return
        size = appendfile.append(descriptor, b"".join(map(readable_line, fresh)))
        self._known.update(letter.record_id for letter in fresh)
        self._read_up_to = size
        if size >= self._rotate_bytes:
            self._rotate()

    def _catch_up(self, descriptor: int) -> None:
        """Learn which records the file has, and cut off a line that a crash left unfinished."""
        state = os.fstat(descriptor)
        if state.st_ino != self._inode or state.st_size < self._read_up_to:
            self._inode, self._read_up_to, self._known = state.st_ino, 0, set()
        at, rest = self._read_up_to, b""
        while at < state.st_size:
            piece = os.pread(descriptor, _READ_BYTES, at)
            if not piece:
                break
            at += len(piece)
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                self._known.update(int(found) for found in _RECORD_ID.findall(whole))
        if rest:
            os.ftruncate(descriptor, at - len(rest))
        self._read_up_to = at - len(rest)

    def _rotate(self) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self.path.rename(self.path.with_name(f"{self.path.stem}-{stamp}.ndjson"))
        appendfile.sync_directory(self.path.parent)
