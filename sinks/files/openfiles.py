"""The live files of one sink, the least recently used closed when there are too many.

`_lock` guards the table; files are opened, written and closed outside it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from pipeline.runtime.clock import Clock
from sinks.files.livefile import FilePolicy, LiveFile


class OpenFiles:
    """At most `most` files are kept open."""

    def __init__(self, *, directory: Path, policy: FilePolicy, most: int, clock: Clock) -> None:
        self._directory = directory
        self._policy = policy
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._files: OrderedDict[str, LiveFile] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._files)

    def get(self, relative: str) -> LiveFile:
        """The live file of that path below the directory."""
        evicted = None
        with self._lock:
            file = self._files.get(relative)
            if file is not None:
                self._files.move_to_end(relative)
                return file
            file = LiveFile(path=self._directory / relative, policy=self._policy, clock=self._clock)
            self._files[relative] = file
            if len(self._files) > self._most:
                _, evicted = self._files.popitem(last=False)
        if evicted is not None:
            evicted.close(evicted=True)
        return file

    def tend(self, *, idle_s: float, sync: bool) -> list[OSError]:
        """Sync, rotate and close what is due; returns what failed."""
        with self._lock:
            files = list(self._files.values())
        errors = []
        for file in files:
            try:
                file.tend(idle_s=idle_s, sync=sync)
            except OSError as error:
                errors.append(error)
        return errors

    def rotate(self) -> None:
        """Put every file aside now.  Raises OSError."""
        with self._lock:
            files = list(self._files.values())
        for file in files:
            file.rotate()

    def close(self) -> None:
        """Close all; raises the last OSError, after all were tried."""
        with self._lock:
            files, self._files = list(self._files.values()), OrderedDict()
        failed: OSError | None = None
        for file in files:
            try:
                file.close()
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed
