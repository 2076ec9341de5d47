"""The server's own messages as log lines like all others."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from collector_site.environment import installation
from collector_site.logging import configure


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        settings = installation().logging
        configure({"format": settings.format, "level": settings.level})
        self.error_log.propagate = True
        self.loglevel = self.error_log.getEffectiveLevel()
