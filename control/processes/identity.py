"""This process's row: who it is, that it is alive, what its pipelines report, how it ended.

Written by the heart's thread alone. The row's id is known before any database answers; the row
is made by the first heartbeat that gets through.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from control import __version__
from control.ports.stats import stats as pipeline_stats
from control.processes.models import Process, WorkerRun
from pipeline.runtime.clock import Clock

# A gone pid is proof of death sooner than silence is; a living process has beaten by then.
GONE_AFTER = timedelta(seconds=10)
# How the reasons begin that others write for a process which could not say why it ended.
GONE, SILENT = "ended without saying so", "no heartbeat since"


def moment(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(
        microsecond=time_us % 1_000_000
    )


def plain(report: Any) -> Any:
    """JSON values only: what is not (an infinity, a path) must not cost the heartbeat.

    A NUL, which PostgreSQL takes in no text, is spelled out.
    """
    raw = msgspec.json.encode(report, enc_hook=str)
    value = msgspec.json.decode(raw)
    return _without_nul(value) if b"\\u0000" in raw else value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\\u0000")
    if isinstance(value, list):
        return [_without_nul(one) for one in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(one) for key, one in value.items()}
    return value


def ended_in_order(process: Process) -> bool:
    """Whether it has ended, and said so itself: its books are then the last word."""
    reason = process.exit_reason
    return bool(process.stopped_at and reason) and not reason.startswith((GONE, SILENT))


class Identity:
    """One life of this process, from `start` to `stop`."""

    def __init__(
        self,
        *,
        role: str,
        clock: Clock,
        stats: Callable[[], dict[str, Any]] = pipeline_stats,
        pid: int | None = None,
        host: str | None = None,
    ) -> None:
        self.id = uuid.uuid4()
        self.role = role
        self.pid = os.getpid() if pid is None else pid
        self.host = host or socket.gethostname()
        self._clock = clock
        self._stats = stats
        self.started_at = self.now()

    def now(self) -> datetime:
        return moment(self._clock.time_us())

    def heartbeat(self) -> None:
        """Say that this process lives. Takes back a death that was declared too soon."""
        self._write({"stopped_at": None, "exit_reason": ""})

    def ended(self, reason: str) -> None:
        now = self.now()
        self._write({"stopped_at": now, "exit_reason": reason[:200]})
        _end_runs(self.id, now)

    def _write(self, state: dict[str, Any]) -> None:
        report = plain(self._stats())
        ledger = report.pop("ledger", [])
        fields = {
            "last_seen_at": self.now(),
            "stats": report,
            "ledger": ledger,
            "log_id": str(report.get("log_id", ""))[:64],
            **state,
        }
        if not Process.objects.filter(pk=self.id).update(**fields):
            Process.objects.create(
                id=self.id,
                role=self.role,
                host=self.host[:255],
                pid=self.pid,
                version=__version__,
                started_at=self.started_at,
                **fields,
            )

    def mark_dead(self) -> int:
        """Declare dead the processes that have fallen silent; returns how many."""
        now = self.now()
        count = 0
        silent = Process.objects.filter(stopped_at=None, last_seen_at__lt=now - GONE_AFTER)
        for process in silent.exclude(pk=self.id).only("id", "host", "pid", "last_seen_at"):
            if process.host == self.host and not _pid_exists(process.pid):
                reason = f"{GONE}: its process is gone"
            elif not process.is_alive(now):
                reason = f"{SILENT} {process.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"
            else:
                continue
            # Conditional on the heartbeat just read: it may have come back meanwhile.
            if Process.objects.filter(
                pk=process.pk, stopped_at=None, last_seen_at=process.last_seen_at
            ).update(stopped_at=process.last_seen_at, exit_reason=reason):
                _end_runs(process.pk, process.last_seen_at)
                count += 1
        return count


def _end_runs(process_id: uuid.UUID, at: datetime) -> None:
    WorkerRun.objects.filter(process_id=process_id, ended_at=None).update(ended_at=at)


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


_current: Identity | None = None
_lock = threading.Lock()


def current_identity() -> Identity | None:
    """This process's identity while it runs; None in commands and tests that start nothing."""
    with _lock:
        return _current


def set_current_identity(identity: Identity | None) -> None:
    global _current
    with _lock:
        _current = identity
