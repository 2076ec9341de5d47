"""One pipeline as the dashboard shows it: what all living processes say of it, added up.

A process of another version may have written its figures, so one that is missing reads as zero.
Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control.admin.ledger import dropped_of, float_of, int_of
from control.admin.moments import moment
from control.admin.samples import PipelineHistory

# The pipeline's own words; any other state lies between the two first.
STATE_RANK = {"": -1, "running": 0, "paused": 2, "failing": 3, "misconfigured": 4, "stuck": 5}
BREAKER_RANK = {"": -1, "closed": 0, "half_open": 1, "open": 2}
BREAKER_WORDS = {"closed": "closed", "half_open": "half-open", "open": "open"}


def stats_pipelines(stats: Any) -> list[Mapping[str, Any]]:
    found = stats.get("pipelines") if isinstance(stats, Mapping) else None
    return [one for one in found or [] if isinstance(one, Mapping)]


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The shares of its capacity at which a pipeline hints, sheds, refuses, and admits again."""

    hint: float | None = None
    shed: float | None = None
    high: float | None = None
    low: float | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Marks:
        return cls(
            hint=float_of(data, "hint_watermark"),
            shed=float_of(data, "shed_watermark"),
            high=float_of(data, "high_watermark"),
            low=float_of(data, "low_watermark"),
        )


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
    backlog_max_bytes: int = 0
    in_flight: int = 0
    workers: int = 0
    busy_workers: int = 0
    min_workers: int = 0
    max_workers: int = 0
    batch_limit: int = 0
    write_limit: int = 0
    scaled_up: int = 0
    scaled_down: int = 0
    marks: Marks = Marks()
    # Settings that are at what the sink bears.
    capped: frozenset[str] = frozenset()
    waiting_tenants: int = 0
    waiting_requests: int = 0
    internal: bool = False
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
    breaker: str = ""
    breaker_cause: str = ""
    breaker_trips: int = 0
    opened_at: datetime | None = None
    retry_in_s: float | None = None
    hung_workers: list[str] = field(default_factory=list)
    history: PipelineHistory | None = None
    # Each process's own figures, as each has a queue and workers of its own.
    parts: list[PipelineView] = field(default_factory=list)
    told: Mapping[str, Any] = field(default_factory=dict)

    def add_part(self, data: Mapping[str, Any]) -> None:
        """Count what one process says, and keep it by itself."""
        part = PipelineView(key=self.key, name=self.name, told=data)
        part.add(data)
        self.parts.append(part)
        self.add(data)

    @property
    def working(self) -> PipelineView:
        """The pipeline in the processes that have had its records, or in all if none has.

        Every process runs every pipeline; the workers of one that gets nothing say nothing.
        """
        busy = [part for part in self.parts if not part.idle]
        if not busy or len(busy) == len(self.parts):
            return self
        rates = {name: getattr(self, name) for name in ("in_rate", "out_rate", "refused_rate")}
        view = PipelineView(key=self.key, name=self.name, history=self.history, **rates)
        for part in busy:
            view.add_part(part.told)
        return view

    @property
    def pressed(self) -> PipelineView:
        """The process that is worst off: one that refuses, and of several the fullest."""
        return max(self.parts, key=lambda one: (one.refusing, one.fill or 0.0), default=self)

    def add(self, data: Mapping[str, Any]) -> None:
        self.processes += 1
        for name in (
            "held_records",
            "capacity_records",
            "held_bytes",
            "backlog_max_bytes",
            "in_flight",
            "workers",
            "busy_workers",
            "min_workers",
            "max_workers",
            "write_limit",
            "scaled_up",
            "scaled_down",
            "waiting_requests",
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
        self.internal = self.internal or bool(data.get("internal"))
        # Each process finds its own batch size, and has its own queue of tenants.
        self.batch_limit = max(self.batch_limit, int_of(data, "batch_limit"))
        self.waiting_tenants = max(self.waiting_tenants, int_of(data, "waiting_tenants"))
        self.marks = Marks.of(data)
        capped = data.get("capped")
        if isinstance(capped, list):
            self.capped |= frozenset(map(str, capped))
        self.oldest_s = max(self.oldest_s, float_of(data, "oldest_s") or 0.0)
        self._add_state(str(data.get("state") or ""))
        self._add_latency(data.get("write_latency"))
        self._add_error(data)
        self._add_breaker(data.get("breaker"))
        hung = data.get("hung_workers")
        self.hung_workers += [str(name) for name in hung] if isinstance(hung, list) else []

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

    def _add_breaker(self, breaker: Any) -> None:
        if not isinstance(breaker, Mapping):
            return
        state = str(breaker.get("state") or "")
        self.breaker_trips += int_of(breaker, "trips")
        if BREAKER_RANK.get(state, -1) > BREAKER_RANK.get(self.breaker, -1):
            self.breaker, self.breaker_cause = state, str(breaker.get("cause") or "")
        if state not in ("open", "half_open"):
            return
        opened_at, retry_in_s = moment(breaker.get("opened_at")), float_of(breaker, "retry_in_s")
        if opened_at and (self.opened_at is None or opened_at < self.opened_at):
            self.opened_at = opened_at
        if retry_in_s is not None and (self.retry_in_s is None or retry_in_s < self.retry_in_s):
            self.retry_in_s = retry_in_s

    @property
    def breaker_word(self) -> str:
        return BREAKER_WORDS.get(self.breaker, self.breaker)

    @property
    def breaker_dot(self) -> str:
        return {"closed": "good", "half_open": "warn", "open": "bad"}.get(self.breaker, "idle")

    @property
    def broken(self) -> bool:
        """Whether the breaker keeps records from the sink."""
        return self.breaker in ("open", "half_open")

    @property
    def stuck(self) -> bool:
        return self.state == "stuck"

    @property
    def bad(self) -> bool:
        return bool(self.misconfigured) or self.state in ("failing", "misconfigured", "stuck")

    @property
    def failing(self) -> bool:
        return self.state == "failing"

    @property
    def idle(self) -> bool:
        """Whether it has had none of the pipeline's records."""
        return not (self.accepted or self.stored or self.held_records or self.refused)

    @property
    def fill_records(self) -> float | None:
        return self.held_records / self.capacity_records if self.capacity_records else None

    @property
    def fill_bytes(self) -> float | None:
        return self.held_bytes / self.backlog_max_bytes if self.backlog_max_bytes else None

    @property
    def fill(self) -> float | None:
        """The fuller of the two bounds, records or bytes, in the fullest process."""
        if len(self.parts) > 1:
            return self.pressed.fill
        ratios = (self.fill_records, self.fill_bytes)
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    @property
    def scarce_bytes(self) -> bool:
        """Whether bytes run out before records do."""
        return (self.fill_bytes or 0.0) > (self.fill_records or 0.0)

    @property
    def fill_percent(self) -> int:
        return round(min(self.fill or 0.0, 1.0) * 100)
