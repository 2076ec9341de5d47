"""The directory of all logs: finding those whose process is gone.

Called by the engine's control threads.  A log belongs to whoever holds the lock in its directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pipeline.log.files import Owned
from pipeline.log.quarantine import DIRECTORY as QUARANTINE

log = logging.getLogger(__name__)


def log_directories(root: Path) -> list[Path]:
    """The directories of all logs, living and dead."""
    try:
        found = sorted(root.iterdir())
    except FileNotFoundError:
        return []
    return [
        path
        for path in found
        if path.is_dir() and not path.name.startswith(".") and path.name != QUARANTINE
    ]


def orphans(root: Path) -> Iterator[Owned]:
    """The logs that no process has, each locked for the caller."""
    for path in log_directories(root):
        try:
            owned = Owned.take(path)
        except FileNotFoundError:
            continue  # its owner has just removed it
        except OSError as error:
            log.error("the log %s cannot be taken over: %s", path, error)
            continue
        if owned is not None:
            if path.exists():
                yield owned
            else:
                owned.release()
