"""The directory of all logs: finding those whose process is gone.

Called by the engine's control threads.  A log belongs to whoever holds the lock in its directory.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.log.files import LOCK, Owned

log = logging.getLogger(__name__)

# What else lies in the directory, such as lost+found and the quarantine, is somebody else's.
_LOG_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def log_directories(root: Path) -> list[Path]:
    """The directories of all logs, living and dead."""
    try:
        found = sorted(root.iterdir())
    except FileNotFoundError:
        return []
    return [path for path in found if _LOG_ID.fullmatch(path.name) and (path / LOCK).is_file()]


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
            yield owned
