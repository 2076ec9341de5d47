"""What every process says about itself, put together for the dashboard.

Processes write their figures as JSON with each heartbeat; a process of another version may have
written them, so a figure that is missing reads as zero. Runs in request threads; built once a
request and held by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from control.admin import samples
from control.admin.alarms import Alarm, alarms_of
from control.admin.buckets import bucketed
from control.admin.ledger import LedgerView, accepted_in, int_of, ledger_views
from control.admin.logs import AdoptedView, LogView, log_view
from control.admin.moments import moment
from control.admin.pipelines import PipelineView, stats_pipelines
from control.admin.samples import PipelineHistory, Window
from control.ports.stats import stats

# Rates "now" are taken over this long: three heartbeats, so that one late beat does not show as 0.
RECENT = timedelta(seconds=16)
# Processes that ended longer ago are found in the list of processes only.
SHOW_ENDED = timedelta(hours=24)
MAX_ENDED = 8
MAX_LIVE = 200


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
    alarms: list[Alarm] = field(default_factory=list)
    log: LogView | None = None
    adopted_by: Any = None

    @property
    def delivered_at(self) -> datetime | None:
        """When another process had delivered what this one left in its log."""
        told = self.process.stats.get("delivered") if isinstance(self.process.stats, dict) else None
        return moment(told.get("at")) if isinstance(told, dict) else None

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
    keys: dict[str, str] = field(default_factory=dict)
    """The key of each sink that a process runs, by its name."""

    @property
    def logs(self) -> list[LogView]:
        return [one.log for one in self.alive if one.log is not None]

    @property
    def ended_ledgers(self) -> list[ProcessView]:
        """Processes that have ended, with the ledger of their last heartbeat.

        Not those whose log was adopted: its ledger goes on with the adopter.
        """
        return [one for one in self.ended if one.ledger and one.adopted_by is None]

    @property
    def adopted_ledgers(self) -> list[tuple[LogView, AdoptedView]]:
        return [(log, one) for log in self.logs for one in log.adopted if one.ledger]

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


def _tell_now(process: Any) -> None:
    """Replace the figures of the last heartbeat by those of the moment, if it is this process."""
    from control.processes.identity import current_identity, plain

    own = current_identity()
    if own is not None and process.pk == own.id:
        told = plain(stats())
        process.ledger = told.pop("ledger")
        process.stats = told


def build(now: datetime, *, window: Window | None = None, fresh: bool = False) -> Overview:
    """Read the tables and put the overview together.

    With `fresh`, this process's own figures are those of the moment, not of its last heartbeat.
    """
    window = window or Window.until(now)
    rows = samples.read_rows(window)
    histories = {history.key: history for history in bucketed(rows, window)}
    rates = recent_rates(rows, now)
    processes: list[ProcessView] = []
    pipelines: dict[str, PipelineView] = {}
    live_ledger: list[Any] = []
    names: dict[str, str] = {key: history.name for key, history in histories.items()}
    for process in _read_processes(now):
        if fresh:
            _tell_now(process)
        for data in stats_pipelines(process.stats):
            names[str(data.get("key"))] = str(data.get("name") or data.get("key"))
        state = process_state(process, now)
        view = ProcessView(process=process, alive=state == "alive", state=state)
        rows_of = process.ledger if isinstance(process.ledger, list) else []
        view.ledger = ledger_views(rows_of, names)
        view.in_flight = sum(row.in_flight for row in view.ledger)
        view.alarms = alarms_of(process, state=state)
        if view.alive:
            view.log = log_view(process, process.stats)
            live_ledger.extend(rows_of)
            _add_pipelines(view, pipelines, rates)
        processes.append(view)
    for key, pipeline in pipelines.items():
        pipeline.history = histories.get(key)
    adopters = {
        adopted.log_id: view.process
        for view in processes
        for adopted in (view.log.adopted if view.log else ())
    }
    for view in processes:
        if not view.alive and view.process.log_id:
            view.adopted_by = adopters.get(view.process.log_id)
    return Overview(
        now=now,
        window=window,
        processes=processes,
        pipelines=sorted(pipelines.values(), key=lambda one: (not one.required, one.name)),
        ledger=ledger_views(live_ledger, names),
        histories=sorted(histories.values(), key=lambda history: history.name),
        keys={name: key for key, name in names.items()},
    )


def _add_pipelines(
    view: ProcessView,
    pipelines: dict[str, PipelineView],
    rates: Mapping[tuple[str, str], _Rate],
) -> None:
    for data in stats_pipelines(view.process.stats):
        key = str(data.get("key") or data.get("name") or "?")
        pipeline = pipelines.setdefault(key, PipelineView(key=key, name=str(data.get("name", key))))
        pipeline.add_part(data)
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
