"""Up to when pings are known: those still on their way to the database must not count as missed.

Told by what each process last said of itself.  A living one knows how old the oldest ping is that
its sinks hold; of one that died without a word, whatever came in after its last heartbeat is
unknown until somebody has delivered its log.  The judgement is a pure function of those rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from control.processes.identity import ended_in_order
from control.processes.models import Process
from healthmon.heartbeats.sink import HEALTH_PINGS, PINGS
from sinks.internal import PREFIX

NAMES = frozenset({PINGS, HEALTH_PINGS})
KEYS = frozenset(PREFIX + name for name in NAMES)
LISTENING_ROLE = "server"
# A log that nobody has delivered by then is taken for lost, with what little it may hold.
WAITED_FOR = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Every ping that arrived before `known_until` is in the database.

    `listening_since` is from when on pings could come in at all; both are None while no server
    is known to live.
    """

    known_until: datetime | None
    listening_since: datetime | None
    cause: str = ""


def delivery(processes: Iterable[Process], now: datetime) -> Delivery:
    """What the processes' rows say."""
    known_until = listening_since = None
    cause = ""
    for process in processes:
        until = _known_until(process, now)
        if until is None:
            continue
        if known_until is None or until < known_until:
            known_until = until
            cause = f"pings wait in process {process.host}:{process.pid} to be stored"
        if process.role == LISTENING_ROLE and process.is_alive(now):
            since = process.started_at
            listening_since = since if listening_since is None else min(listening_since, since)
    if listening_since is None:
        return Delivery(None, None, "no server is there to take pings")
    return Delivery(known_until, listening_since, cause)


def read_delivery(now: datetime) -> Delivery:
    """As the database tells.  Raises django.db.Error."""
    rows = Process.objects.filter(last_seen_at__gt=now - WAITED_FOR)
    return delivery(
        rows.only(
            "role", "host", "pid", "started_at", "last_seen_at", "stopped_at", "stats", "ledger",
            "exit_reason",
        ),
        now,
    )  # fmt: skip


def _known_until(process: Process, now: datetime) -> datetime | None:
    """Up to when this process has stored its pings; None when it can hold none."""
    stats = process.stats if isinstance(process.stats, dict) else {}
    if process.is_alive(now):
        return process.last_seen_at - timedelta(seconds=_oldest_s(stats))
    if "delivered" in stats:
        return None
    if ended_in_order(process) and not _left(process.ledger):
        return None
    if not stats.get("pipelines") and not stats.get("log_id"):
        return None  # a process without sinks, such as a command
    return process.last_seen_at - timedelta(seconds=_oldest_s(stats))


def _oldest_s(stats: Mapping[str, Any]) -> float:
    held = (
        one
        for one in stats.get("pipelines") or ()
        if isinstance(one, dict) and one.get("key") in KEYS
    )
    return max((float(one.get("oldest_s") or 0.0) for one in held), default=0.0)


def _left(ledger: object) -> bool:
    """Whether a process that stopped has left pings in its log."""
    rows = ledger if isinstance(ledger, list) else []
    return any(
        int(row.get("in_flight") or 0) + int(row.get("left_in_log") or 0) > 0
        for row in rows
        if isinstance(row, dict) and row.get("sink") in NAMES
    )
