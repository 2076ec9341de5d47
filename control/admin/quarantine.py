"""What was taken out of logs because it was torn or corrupt: a file each, kept until deleted.

The bytes are what an unknown fault left, and may hold parts of any tenant's records: only a
superuser may have them. A name is never joined to a path before it was found in the listing.
Runs in request threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from control.admin.logdirs import QUARANTINE, directory
from pipeline.log.inspect import Damage, FrameInfo, scan_bytes

MAX_FILES = 500
# Enough for the header of what a file begins with; its bytes are not read for a listing.
EXAMINED_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One file: `records` as far as headers tell, `why` it is here, where it was."""

    name: str
    path: Path
    nbytes: int
    at: datetime
    why: str
    records: int | None
    position: int | None


def place() -> Path:
    return directory() / QUARANTINE


def names() -> list[str]:
    """The files' names, the newest last as names tell; a bounded number."""
    try:
        with os.scandir(place()) as entries:
            found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(found)[:MAX_FILES]


def listing() -> list[Quarantined]:
    """Every file, the newest first."""
    found = [one for one in map(_look, names()) if one]
    return sorted(found, key=lambda one: one.at, reverse=True)


def find(name: str) -> Quarantined | None:
    """The file of that name, if it is in the listing."""
    return _look(name) if name in names() else None


def held() -> tuple[int, int]:
    """How many files there are, and their bytes."""
    sizes = []
    for name in names():
        try:
            sizes.append((place() / name).stat(follow_symlinks=False).st_size)
        except OSError:
            continue
    return len(sizes), sum(sizes)


def _look(name: str) -> Quarantined | None:
    path = place() / name
    try:
        status = path.stat(follow_symlinks=False)
        with path.open("rb") as file:
            data = file.read(EXAMINED_BYTES)
    except OSError:
        return None  # deleted a moment ago
    why, records, position = _examine(data)
    return Quarantined(
        name=name,
        path=path,
        nbytes=status.st_size,
        at=datetime.fromtimestamp(status.st_mtime, tz=UTC),
        why=why,
        records=records,
        position=position,
    )


def _examine(data: bytes) -> tuple[str, int | None, int | None]:
    """Why the bytes are here, how many records their headers tell of, and the first's place."""
    records = position = None
    why = ""
    for one in scan_bytes(data):
        why = why or (one.why if isinstance(one, Damage) else "sound, but out of its place")
        header = one if isinstance(one, FrameInfo) else one.header
        if header is not None:
            records = (records or 0) + header.count
            position = header.position if position is None else position
    return why or "nothing but zeros", records, position
