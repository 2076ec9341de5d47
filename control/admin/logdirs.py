"""The directory of the logs on this host: which logs lie there, and whose they are.

Only names, sizes and times are read, and never more than a bounded number of them; no lock is
touched, as a log's lock belongs to whoever owns or adopts it. Runs in request threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings

from control.admin.overview import Overview

QUARANTINE = "quarantine"
MAX_LOGS = 500
MAX_FILES = 5_000
# Orphans are looked for every 15 s; what nobody has taken by then is worth a look.
UNCLAIMED_AFTER = timedelta(seconds=60)


def directory() -> Path:
    """Where this installation keeps its logs."""
    configured = settings.COLLECTOR.log.directory
    return configured if configured is not None else settings.COLLECTOR.server.data_dir / "wal"


@dataclass(frozen=True, kw_only=True)
class LogDirectory:
    """One log's directory."""

    log_id: str
    path: Path
    nbytes: int
    segments: int
    changed_at: datetime
    owner: str = ""
    """alive, adopted, or nothing: then it is an orphan."""


def on_disk(overview: Overview) -> list[LogDirectory]:
    """Every log under the directory, those that nobody owns first."""
    owners: dict[str, str] = {}
    for log in overview.logs:
        owners[log.log_id] = "alive"
        owners |= {adopted.log_id: "adopted" for adopted in log.adopted}
    for one in overview.alive:
        owners.setdefault(one.process.log_id, "alive")
    looks = (_look(path, owners) for path in _directories())
    found = [one for one in looks if one]
    return sorted(found, key=lambda one: (bool(one.owner), one.changed_at))


def unclaimed(overview: Overview) -> list[LogDirectory]:
    """Logs that no living process owns or has adopted, though there was time to."""
    return [
        one
        for one in on_disk(overview)
        if not one.owner and one.segments and overview.now - one.changed_at > UNCLAIMED_AFTER
    ]


def _directories() -> Iterable[Path]:
    try:
        with os.scandir(directory()) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name != QUARANTINE
                and not entry.name.startswith(".")  # being made
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [directory() / name for name in sorted(names)[:MAX_LOGS]]


def _look(path: Path, owners: dict[str, str]) -> LogDirectory | None:
    nbytes = segments = 0
    try:
        changed = path.stat().st_mtime
        with os.scandir(path) as entries:
            for seen, entry in enumerate(entries):
                if seen >= MAX_FILES:
                    break
                status = entry.stat(follow_symlinks=False)
                nbytes += status.st_size
                segments += entry.name.endswith(".seg")
                changed = max(changed, status.st_mtime)
    except OSError:
        return None  # it was finished and removed a moment ago
    return LogDirectory(
        log_id=path.name,
        path=path,
        nbytes=nbytes,
        segments=segments,
        changed_at=datetime.fromtimestamp(changed, tz=UTC),
        owner=owners.get(path.name, ""),
    )
