"""The last good API keys in the data directory, so that ingest starts without a database.

Holds digests, never tokens; readable by the owner alone. Written under the key ring's lock when
the rows changed, by replacing the file, so that a reader never sees half of one.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
from django.conf import settings

from control.auth.keys import KeyRow, Snapshot

logger = logging.getLogger(__name__)


class FileSnapshot(Snapshot):
    def __init__(self, *, path: Path | None = None) -> None:
        self._path = path
        self._saved: bytes | None = None
        self.absent = False

    @property
    def path(self) -> Path:
        if self._path is not None:
            return self._path
        return Path(settings.COLLECTOR.server.data_dir) / "snapshot" / "api_keys.json"

    def load(self) -> list[KeyRow] | None:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            self.absent = True
            return None
        except OSError as error:
            logger.error("the snapshot of API keys cannot be read", extra={"error": str(error)})
            return None
        try:
            return msgspec.json.decode(raw, type=list[KeyRow])
        except msgspec.DecodeError as error:
            logger.error("the snapshot of API keys is damaged", extra={"error": str(error)})
            return None

    def save(self, rows: list[KeyRow]) -> None:
        raw = msgspec.json.encode(rows)
        if raw == self._saved:
            return
        path = self.path
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fdatasync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            logger.error("the snapshot of API keys was not written", extra={"error": str(error)})
            return
        self._saved = raw
