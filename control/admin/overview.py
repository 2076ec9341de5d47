"""What every process says about itself, put together for the dashboard.

Processes write their figures as JSON with each heartbeat; a process of another version may have
written them, so a figure that is missing reads as zero. Runs in request threads; built once a
request and held by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from control.admin import samples
from control.admin.ledger import (
    LedgerView,
    accepted_in,
    dropped_of,
    float_of,
    int_of,
    ledger_views,
)
from control.admin.samples import PipelineHistory, Window

# Rates "now" are taken over this long: three heartbeats, so that one late beat does not show as 0.
RECENT = timedelta(seconds=16)
# Processes that ended longer ago are found in the list of processes only.
SHOW_ENDED = timedelta(hours=24)
MAX_ENDED = 8
MAX_LIVE = 200
# The pipeline's own words; any other state lies between the two first.
STATE_RANK = {"": -1, "running": 0, "paused": 2, "failing": 3, "misconfigured": 4}


def moment(value: Any) -> datetime | None:
    """A time as a process may have written it: ISO text, seconds, or microseconds since 1970."""
    if isinstance(value, str) and value:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return None
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    if isinstance(value, int | float) and value > 0:
        seconds = value / 1e6 if value > 1e12 else float(value)
        return datetime.fromtimestamp(seconds, tz=UTC)
    return None


def stats_pipelines(stats: Any) -> list[Mapping[str, Any]]:
    found = stats.get("pipelines") if isinstance(stats, Mapping) else None
    return [one for one in found or [] if isinstance(one, Mapping)]


@dataclass(kw_only=True)
class PipelineView:
    """One pipeline over all live processes that run it."""

    key: str
    name: str
    state: str = ""
    misconfigured: str = ""
    required: bool = False
    paused: bool = False
    refusing: bool = False
    processes: int = 0
    held_records: int = 0
    capacity_records: int = 0
    held_bytes: int = 0
    capacity_bytes: int = 0
    in_flight: int = 0
    workers: int = 0
    busy_workers: int = 0
    accepted: int = 0
    stored: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    refused: int = 0
    retries: int = 0
    failures: int = 0
    oldest_s: float = 0.0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    in_rate: float | None = None
    out_rate: float | None = None
    refused_rate: float | None = None
    history: PipelineHistory | None = None

    def add(self, data: Mapping[str, Any]) -> None:
        self.processes += 1
        for name in (
            "held_records",
            "capacity_records",
            "held_bytes",
            "capacity_bytes",
            "in_flight",
            "workers",
            "busy_workers",
            "accepted",
            "stored",
            "dead_lettered",
            "refused",
            "retries",
            "failures",
        ):
            setattr(self, name, getattr(self, name) + int_of(data, name))
        self.dropped += dropped_of(data)
        self.required = self.required or bool(data.get("required"))
        self.paused = self.paused or bool(data.get("paused"))
        self.refusing = self.refusing or bool(data.get("refusing"))
        self.misconfigured = self.misconfigured or str(data.get("misconfigured") or "")
        self.oldest_s = max(self.oldest_s, float_of(data, "oldest_s") or 0.0)
        self._add_state(str(data.get("state") or ""))
        self._add_latency(data.get("write_latency"))
        self._add_error(data)

    def _add_state(self, state: str) -> None:
        # Of several processes, the one that is worst off is what the operator must see.
        if STATE_RANK.get(state, 1) > STATE_RANK.get(self.state, 0):
            self.state = state

    def _add_latency(self, latency: Any) -> None:
        if not isinstance(latency, Mapping):
            return
        for name in ("p50", "p95", "p99"):
            value, known = float_of(latency, name), getattr(self, name)
            if value is not None and value > 0:
                setattr(self, name, value if known is None else max(known, value))

    def _add_error(self, data: Mapping[str, Any]) -> None:
        error, at = str(data.get("last_error") or ""), moment(data.get("last_error_at"))
        if error and (self.last_error_at is None or (at and at > self.last_error_at)):
            self.last_error, self.last_error_at = error, at

    @property
    def failing(self) -> bool:
        return self.state == "failing"

    @property
    def fill(self) -> float | None:
        """The fuller of the two bounds: records or bytes."""
        ratios = []
        if self.capacity_records:
            ratios.append(self.held_records / self.capacity_records)
        if self.capacity_bytes:
            ratios.append(self.held_bytes / self.capacity_bytes)
        return max(ratios, default=None)

    @property
    def fill_percent(self) -> int:
        return round(min(self.fill or 0.0, 1.0) * 100)


@dataclass(kw_only=True)
class ProcessView:
    """One process: its row and its figures."""

    process: Any
    alive: bool
    state: str
    held_records: int = 0
    in_flight: int = 0
    workers: int = 0
    in_rate: float | None = None
    out_rate: float | None = None
    ledger: list[LedgerView] = field(default_factory=list)

    @property
    def imbalance(self) -> int:
        return sum(row.imbalance for row in self.ledger)

    @property
    def stored(self) -> int:
        return sum(row.stored for row in self.ledger)


@dataclass(kw_only=True)
class Overview:
    """Everything the dashboard shows, at one moment."""

    now: datetime
    window: Window
    processes: list[ProcessView]
    pipelines: list[PipelineView]
    ledger: list[LedgerView]
    histories: list[PipelineHistory]

    @property
    def alive(self) -> list[ProcessView]:
        return [one for one in self.processes if one.alive]

    @property
    def ended(self) -> list[ProcessView]:
        return [one for one in self.processes if not one.alive]

    @property
    def accepted_ever(self) -> int:
        return sum(accepted_in(one.process.ledger) for one in self.processes)


def process_state(process: Any, now: datetime) -> str:
    """alive, stopped (it said goodbye), or lost (it fell silent)."""
    if process.is_alive(now):
        return "alive"
    return "stopped" if process.stopped_at is not None else "lost"


@dataclass
class _Rate:
    seconds: float = 0.0
    accepted: int = 0
    stored: int = 0
    refused: int = 0


def recent_rates(rows: Iterable[Mapping[str, Any]], now: datetime) -> dict[tuple[str, str], _Rate]:
    """What each process's pipeline did of late, by (process id, pipeline key)."""
    rates: dict[tuple[str, str], _Rate] = {}
    for row in rows:
        if now - row["at"] <= RECENT:
            rate = rates.setdefault((str(row["process_id"]), row["key"]), _Rate())
            rate.seconds += row["interval_s"]
            rate.accepted += row["accepted"]
            rate.stored += row["stored"]
            rate.refused += row["refused"]
    return {key: rate for key, rate in rates.items() if rate.seconds > 0}


def _plus(known: float | None, more: float) -> float:
    return more if known is None else known + more


def _read_processes(now: datetime) -> list[Any]:
    from control.models import Process

    recent = Process.objects.filter(last_seen_at__gte=now - SHOW_ENDED).order_by("-last_seen_at")
    rows = list(recent[:MAX_LIVE])
    alive = [row for row in rows if row.is_alive(now)]
    ended = [row for row in rows if not row.is_alive(now)]
    alive.sort(key=lambda row: (row.role, row.host, row.pid))
    return alive + ended[:MAX_ENDED]


def build(now: datetime) -> Overview:
    """Read the tables and put the overview together."""
    window = Window.until(now)
    rows = samples.read_rows(window)
    histories = {history.key: history for history in samples.bucketed(rows, window)}
    rates = recent_rates(rows, now)
    processes: list[ProcessView] = []
    pipelines: dict[str, PipelineView] = {}
    live_ledger: list[Any] = []
    names: dict[str, str] = {key: history.name for key, history in histories.items()}
    for process in _read_processes(now):
        for data in stats_pipelines(process.stats):
            names[str(data.get("key"))] = str(data.get("name") or data.get("key"))
        state = process_state(process, now)
        view = ProcessView(process=process, alive=state == "alive", state=state)
        rows_of = process.ledger if isinstance(process.ledger, list) else []
        view.ledger = ledger_views(rows_of, names)
        view.in_flight = sum(row.in_flight for row in view.ledger)
        if view.alive:
            live_ledger.extend(rows_of)
            _add_pipelines(view, pipelines, rates)
        processes.append(view)
    for key, pipeline in pipelines.items():
        pipeline.history = histories.get(key)
    return Overview(
        now=now,
        window=window,
        processes=processes,
        pipelines=sorted(pipelines.values(), key=lambda one: (not one.required, one.name)),
        ledger=ledger_views(live_ledger, names),
        histories=sorted(histories.values(), key=lambda history: history.name),
    )


def _add_pipelines(
    view: ProcessView,
    pipelines: dict[str, PipelineView],
    rates: Mapping[tuple[str, str], _Rate],
) -> None:
    for data in stats_pipelines(view.process.stats):
        key = str(data.get("key") or data.get("name") or "?")
        pipeline = pipelines.setdefault(key, PipelineView(key=key, name=str(data.get("name", key))))
        pipeline.add(data)
        view.held_records += int_of(data, "held_records")
        view.workers += int_of(data, "workers")
        rate = rates.get((str(view.process.pk), key))
        if rate is not None:
            into, out = rate.accepted / rate.seconds, rate.stored / rate.seconds
            pipeline.in_rate = _plus(pipeline.in_rate, into)
            pipeline.out_rate = _plus(pipeline.out_rate, out)
            pipeline.refused_rate = _plus(pipeline.refused_rate, rate.refused / rate.seconds)
            # A record that goes to two sinks came in once: the widest pipeline tells best.
            view.in_rate = max(view.in_rate or 0.0, into)
            view.out_rate = _plus(view.out_rate, out)


def overview_for(request: HttpRequest) -> Overview:
    """The request's overview, built at the first panel that asks for it."""
    known = getattr(request, "collector_overview", None)
    if isinstance(known, Overview):
        return known
    built = build(timezone.now())
    request.collector_overview = built  # type: ignore[attr-defined]
    return built
