"""The directory of the record logs, made before anything is logged, for its owner only.

Started by `lifecycle` before the services that log; holds no state.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)

# Before the heart, and so before every service that takes records in.
ORDER = -10
ROLES_WITHOUT_LOG = frozenset({"command"})


class LogDirectory:
    name = "log-directory"
    order = ORDER

    def start(self, role: str) -> None:
        if role not in ROLES_WITHOUT_LOG:
            make_private(settings.COLLECTOR.wal_directory)

    def stop(self, deadline_s: float) -> None:
        """Nothing to end."""


def make_private(directory: Path) -> None:
    """Make the directory, or take what others may do there away: it holds what people sent.

    A failure is logged; the log itself then refuses records and says so in its readiness.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        logger.error(
            "the directory of the log cannot be used; correct it, or set COLLECTOR_WAL_DIRECTORY",
            extra={"directory": str(directory), "error": error.strerror or str(error)},
        )
