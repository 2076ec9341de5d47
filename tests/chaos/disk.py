"""A disk that fills up: a small tmpfs where mounting is allowed, else a limit on the file size.

The limit (RLIMIT_FSIZE) strikes every file of the server's processes, not only those on the disk.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_FILLER = "filler"
_STEP = 1 << 16


class SmallDisk:
    """At `path` from the constructor to `release`."""

    def __init__(self, path: Path, *, mebibytes: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        options = f"size={mebibytes}m,mode=0700"
        command = (mount or "mount", "-t", "tmpfs", "-o", options, "collector-chaos", str(path))
        self.mounted = (
            mount is not None
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )
        self._limited: list[int] = []

    def fill(self, pids: Iterable[int], *, spare_bytes: int = 0) -> None:
        """From now on nothing more can be written, but for `spare_bytes`."""
        if not self.mounted:
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
                self._limited.append(pid)
            return
        with (self.path / _FILLER).open("wb", buffering=0) as filler:
            for piece in (_STEP, 1):
                try:
                    while True:
                        filler.write(b"\0" * piece)
                except OSError:
                    continue
            filler.truncate(max(filler.tell() - spare_bytes, 0))

    def free(self) -> None:
        (self.path / _FILLER).unlink(missing_ok=True)
        for pid in self._limited:
            try:
                limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
            except ProcessLookupError:
                pass
        self._limited.clear()

    def release(self) -> None:
        if self.mounted:
            # Lazily: a process that was just killed may still hold a file for a moment.
            subprocess.run(("umount", "-l", str(self.path)), capture_output=True, check=False)
            self.mounted = False
