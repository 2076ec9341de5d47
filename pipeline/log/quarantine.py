"""Quarantine: the bytes of frames that were spoilt, kept for whoever wants to look at them.

`<log directory>/quarantine/` beside the logs, a file a damage, bounded in number and size.  Called
by workers that read and by adoptions; `_lock` guards what was seen.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pipeline.log.disk import Disk
from pipeline.log.scan import Damage

log = logging.getLogger(__name__)

DIRECTORY = "quarantine"
MAX_FILES = 1_000
MAX_BYTES_EACH = 1 << 20


class Quarantine:
    """The spoilt frames of one log."""

    def __init__(self, root: Path, log_id: str, disk: Disk) -> None:
        self._directory = root / DIRECTORY
        self._log_id = log_id
        self._disk = disk
        self._lock = threading.Lock()
        self._seen: set[tuple[str, int]] = set()
        self.corrupt_frames = 0
        self.torn_frames = 0
        self.quarantined_bytes = 0

    def keep(self, path: Path, damage: Damage) -> None:
        """Keep the bytes of a damage, once; what cannot be kept is told of."""
        key = (path.name, damage.offset)
        with self._lock:
            if key in self._seen:
                return
            self._seen.add(key)
            if damage.tail:
                self.torn_frames += 1
            else:
                self.corrupt_frames += 1
            self.quarantined_bytes += damage.nbytes
        log.error(
            "log %s: %d bytes at %d of %s are no sound frame (%s%s): %s",
            self._log_id,
            damage.nbytes,
            damage.offset,
            path.name,
            damage.why,
            "; nothing sound follows" if damage.tail else "",
            f"{damage.header.count} records" if damage.header else "nobody knows what it held",
        )
        try:
            self._copy(path, damage)
        except OSError as error:
            log.warning("they could not be put into quarantine: %s", error)

    def _copy(self, path: Path, damage: Damage) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        name = f"{self._log_id}-{path.stem}-{damage.offset}.bin"
        if len(self._disk.names(self._directory)) >= MAX_FILES or (self._directory / name).exists():
            return
        fd = self._disk.open(path)
        try:
            data = self._disk.read(fd, min(damage.nbytes, MAX_BYTES_EACH), damage.offset)
        finally:
            self._disk.close(fd)
        if damage.tail:
            data = data.rstrip(b"\0")
        fd = self._disk.create(self._directory / name, max(len(data), 1))
        try:
            self._disk.write(fd, [data], 0)
        finally:
            self._disk.close(fd)

    def stats(self) -> dict[str, int]:
        with self._lock:
            return {
                "corrupt_frames": self.corrupt_frames,
                "torn_frames": self.torn_frames,
                "quarantined_bytes": self.quarantined_bytes,
            }
