"""Asking other processes: a request row each, then waiting for the answers.

Used by commands on their main thread. Time and waiting are passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from control.processes.ledgers import Totals
from control.processes.models import DEAD_AFTER, Process, ProcessRequest

POLL_S = 0.2
# The second heartbeat comes by then.
FIRST_FIGURES = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a process said; `error` says why it said nothing, or what went wrong there."""

    process: Process
    result: dict[str, Any]
    error: str = ""

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """As told in the answer, else as last written by the process."""
        told = self.result.get("ledger")
        return list(self.process.ledger if told is None else told)

    @property
    def totals(self) -> Totals:
        return Totals(self.ledger)

    @property
    def imbalance(self) -> int:
        """By how much it does not balance: by the process's own count, or by its rows' sums."""
        told = sum(abs(int(row.get("imbalance", 0))) for row in self.ledger)
        return max(told, self.totals.imbalance)


def living(now: datetime | None = None) -> list[Process]:
    """The processes that have shown a sign of life, oldest first."""
    now = now or datetime.now(UTC)
    alive = Process.objects.filter(stopped_at=None, last_seen_at__gt=now - DEAD_AFTER)
    return list(alive.order_by("started_at"))


def has_pipelines(process: Process) -> bool:
    """Whether it takes records in."""
    if process.role == "server" and process.last_seen_at - process.started_at < FIRST_FIGURES:
        return True  # what it said first was said before its pipelines began
    return bool(process.stats.get("pipelines")) or bool(process.ledger)


def ask(
    processes: Iterable[Process],
    kind: str,
    *,
    args: dict[str, Any] | None = None,
    timeout_s: float,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Answer]:
    """Ask each process; yield the answers as they come, then what did not answer."""
    asked = {
        ProcessRequest.objects.create(process=process, kind=kind, args=args or {}).pk: process
        for process in processes
    }
    due = monotonic() + timeout_s
    while asked:
        done = ProcessRequest.objects.filter(pk__in=asked).exclude(finished_at=None)
        for request in done:
            yield _answer(asked.pop(request.pk), request.result)
        if not asked or monotonic() >= due:
            break
        wait(POLL_S)
    if asked:
        yield from _unanswered(asked, timeout_s)


def _unanswered(asked: dict[int, Process], timeout_s: float) -> Iterator[Answer]:
    # Withdrawn, so that a process does not begin with it after whoever asked has gone.
    ProcessRequest.objects.filter(pk__in=asked, claimed_at=None).delete()
    for process in asked.values():
        yield Answer(
            process=_fresh(process.pk) or process,
            result={},
            error=f"did not answer within {timeout_s:g} s",
        )


def _answer(process: Process, result: Any) -> Answer:
    told = result if isinstance(result, dict) else {"result": result}
    return Answer(
        process=_fresh(process.pk) or process, result=told, error=str(told.get("error", ""))
    )


def _fresh(process_id: UUID) -> Process | None:
    return Process.objects.filter(pk=process_id).first()
