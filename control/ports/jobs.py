"""The jobs of a service, for whoever tells of that service: one question, one answerer.

The app that runs jobs fills it in at `ready()`; any thread may ask.  The answer is bounded in
number and time, so that a page that shows it stays quick however many jobs there are.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_JOBS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """One job, as a list shows it; text as it came from outside."""

    submitted_at: datetime
    type: str
    state: str
    attempts: int = 0
    finished_at: datetime | None = None
    correlation_id: str = ""
    error: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsFound:
    """The newest jobs of a window.  `problem` says why there are none; `url` leads to them all."""

    jobs: tuple[JobLine, ...] = ()
    problem: str = ""
    url: str = ""
    more: bool = False


class JobSource(Protocol):
    def __call__(
        self, service: str, *, start: datetime, end: datetime, limit: int = MAX_JOBS
    ) -> JobsFound:
        """The newest `limit` jobs of `service` submitted in a window; never raises."""
        ...


_lock = threading.Lock()
_source: JobSource | None = None
_permission = ""


def register_jobs(source: JobSource | None, *, permission: str = "") -> None:
    """Name the function that answers, and whom it is for; None withdraws it."""
    global _source, _permission
    with _lock:
        _source, _permission = source, permission


def jobs_permission() -> str:
    """What somebody must be allowed to be shown the answers; "" for nothing."""
    with _lock:
        return _permission


def jobs_of(
    service: str, *, start: datetime, end: datetime, limit: int = MAX_JOBS
) -> JobsFound | None:
    """The jobs of `service` in a window; None where no app runs jobs."""
    with _lock:
        source = _source
    return None if source is None else source(service, start=start, end=end, limit=limit)
