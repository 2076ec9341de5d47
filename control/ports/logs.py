"""The stored logs of a service, for whoever tells of that service: one question, one answerer.

The app that stores logs fills it in at `ready()`; any thread may ask.  The answer is bounded in
number and time, so that a page that shows it stays quick whatever the table's size.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_LINES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One stored log record, as a list shows it; text as it came from outside."""

    at: datetime
    level: str
    message: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsFound:
    """The newest lines of a window.  `problem` says why there are none; `url` leads to them all."""

    lines: tuple[LogLine, ...] = ()
    problem: str = ""
    url: str = ""
    more: bool = False


class LogSource(Protocol):
    def __call__(
        self, service: str, *, start: datetime, end: datetime, limit: int = MAX_LINES
    ) -> LogsFound:
        """The newest `limit` lines of `service` from `start` until `end`; never raises."""
        ...


_lock = threading.Lock()
_source: LogSource | None = None
_permission = ""


def register_logs(source: LogSource | None, *, permission: str = "") -> None:
    """Name the function that answers, and whom it is for; None withdraws it."""
    global _source, _permission
    with _lock:
        _source, _permission = source, permission


def logs_permission() -> str:
    """What somebody must be allowed to be shown the answers; "" for nothing."""
    with _lock:
        return _permission


def logs_of(
    service: str, *, start: datetime, end: datetime, limit: int = MAX_LINES
) -> LogsFound | None:
    """What is stored of `service` in a window; None where no app stores logs."""
    with _lock:
        source = _source
    return None if source is None else source(service, start=start, end=end, limit=limit)
