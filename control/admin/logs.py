"""The log of each process as the admin shows it, and what is left of logs that ended.

Made from the figures that processes write with their heartbeats. A process of another version may
have written them, so one that is missing reads as nothing. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control.admin.ledger import LedgerView, float_of, int_of, ledger_views
from control.admin.moments import moment
from control.admin.pipelines import stats_pipelines

STATE_WORDS = {
    "ok": "writes",
    "full": "disk full",
    "failing": "cannot write",
    "memory": "in memory only",
}


@dataclass(frozen=True, kw_only=True)
class AdoptedView:
    """A log whose process has ended, delivered by another one."""

    log_id: str
    state: str
    left_records: int
    bytes: int
    segments: int
    corrupt_records: int
    adopted_at: datetime | None
    ledger: tuple[LedgerView, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LogView:
    """One living process's log, and the logs that it has adopted."""

    process: Any
    log_id: str
    directory: str
    state: str
    error: str
    fsync: str
    bytes: int
    segments: int
    appended_frames: int
    appended_bytes: int
    fsyncs: int
    fsync_mean_s: float | None
    fsync_p99_s: float | None
    cache_bytes: int
    damaged_frames: int
    quarantined_bytes: int
    left_records: int
    oldest_s: float | None
    adopted: tuple[AdoptedView, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Logs of ended processes that it could not adopt, and why."""

    @property
    def word(self) -> str:
        return STATE_WORDS.get(self.state, self.state or "not known")

    @property
    def dot(self) -> str:
        return {"ok": "good", "memory": "idle"}.get(self.state, "bad")


@dataclass(kw_only=True)
class LogTotals:
    """All living processes' logs together."""

    bytes: int = 0
    segments: int = 0
    left_records: int = 0
    cache_bytes: int = 0
    adopted: int = 0
    oldest_s: float | None = None
    fsync_p99_s: float | None = None
    modes: set[str] = field(default_factory=set)
    troubled: list[LogView] = field(default_factory=list)

    @property
    def fsync(self) -> str:
        return ", ".join(sorted(self.modes))


def log_view(process: Any, stats: Any) -> LogView | None:
    """What a process says of its log; None where it says nothing."""
    data = stats.get("log") if isinstance(stats, Mapping) else None
    if not isinstance(data, Mapping) or not data:
        return None
    fsyncs, seconds = int_of(data, "fsyncs"), float_of(data, "fsync_seconds_sum")
    return LogView(
        process=process,
        log_id=str(data.get("log_id") or process.log_id),
        directory=str(data.get("directory") or ""),
        state=str(data.get("state") or ""),
        error=str(data.get("error") or ""),
        fsync=str(data.get("fsync") or ""),
        bytes=int_of(data, "bytes"),
        segments=int_of(data, "segments"),
        appended_frames=int_of(data, "appended_frames"),
        appended_bytes=int_of(data, "appended_bytes"),
        fsyncs=fsyncs,
        fsync_mean_s=seconds / fsyncs if fsyncs and seconds is not None else None,
        fsync_p99_s=float_of(data, "fsync_p99_s") if fsyncs else None,
        cache_bytes=int_of(data, "cache_bytes"),
        damaged_frames=int_of(data, "corrupt_frames") + int_of(data, "torn_frames"),
        quarantined_bytes=int_of(data, "quarantined_bytes"),
        left_records=int_of(data, "left_records"),
        oldest_s=_oldest_s(stats),
        adopted=tuple(_adopted(data.get("adopted"))),
        unreadable=_unreadable(data.get("unreadable")),
    )


def _oldest_s(stats: Mapping[str, Any]) -> float | None:
    ages = [float_of(one, "oldest_s") for one in stats_pipelines(stats)]
    return max((age for age in ages if age), default=None)


def _unreadable(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        return ()
    return tuple((str(log_id), str(error)) for log_id, error in value.items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _adopted(rows: Any) -> Iterable[AdoptedView]:
    for row in _list(rows):
        if isinstance(row, Mapping):
            yield AdoptedView(
                log_id=str(row.get("log_id") or "?"),
                state=str(row.get("state") or ""),
                left_records=int_of(row, "left_records"),
                bytes=int_of(row, "bytes"),
                segments=int_of(row, "segments"),
                corrupt_records=int_of(row, "corrupt_records"),
                adopted_at=moment(row.get("adopted_at")),
                ledger=tuple(ledger_views(_list(row.get("ledger")), {})),
            )


def totals(logs: Iterable[LogView]) -> LogTotals:
    total = LogTotals()
    for one in logs:
        total.bytes += one.bytes
        total.segments += one.segments
        total.left_records += one.left_records + sum(log.left_records for log in one.adopted)
        total.cache_bytes += one.cache_bytes
        total.adopted += len(one.adopted)
        total.oldest_s = _greater(total.oldest_s, one.oldest_s)
        total.fsync_p99_s = _greater(total.fsync_p99_s, one.fsync_p99_s)
        if one.fsync:
            total.modes.add(one.fsync)
        if one.state not in ("ok", "memory"):
            total.troubled.append(one)
    return total


def _greater(known: float | None, more: float | None) -> float | None:
    if known is None or more is None:
        return more if known is None else known
    return max(known, more)
