"""How long finished jobs are kept, by their state and their type, and what of them is forgotten.

A type may say otherwise than the installation.  Jobs go with their steps and events, a batch a
transaction, for a bounded time a call; any number of callers at once do no harm.  Discarded jobs
are kept as long as cancelled ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from control.config.settings import JobsSettings
from jobs import metrics
from jobs.states import CANCELLED, DEAD, DISCARDED, FINISHED, SUCCEEDED
from jobs.store.models import JobMinute
from jobs.store.protocol import Store
from jobs.types.models import JobType

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
BUDGET_S = 2.0
# What is left over is gone on with after this, so that others get their turn.
AGAIN_S = 1.0
BATCH_JOBS = 500
BATCH_MINUTES = 500

# The setting, and the column of a type that overrules it.
_DAYS = {
    SUCCEEDED: ("succeeded_days", "keep_succeeded_days"),
    DEAD: ("dead_days", "keep_dead_days"),
    CANCELLED: ("cancelled_days", "keep_cancelled_days"),
    DISCARDED: ("cancelled_days", "keep_cancelled_days"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Jobs of this state and type (None: of any) go after so many days."""

    state: str
    type_id: int | None
    days: int


def rules(jobs: JobsSettings) -> Iterator[Rule]:
    """By state: one for all, or, where a type says otherwise, one for each type.

    Then what is of no type that is known goes when nobody would keep it any more.
    """
    columns = sorted({column for _, column in _DAYS.values()})
    own = {row["pk"]: row for row in JobType.objects.order_by("pk").values("pk", *columns)}
    for state in FINISHED:
        setting, column = _DAYS[state]
        usual: int = getattr(jobs, setting)
        if all(row[column] in (None, usual) for row in own.values()):
            yield Rule(state=state, type_id=None, days=usual)
            continue
        days = {pk: usual if row[column] is None else row[column] for pk, row in own.items()}
        for pk, kept in days.items():
            yield Rule(state=state, type_id=pk, days=kept)
        yield Rule(state=state, type_id=None, days=max(usual, *days.values()))


class Retention:
    """`now` is the database's clock, `monotonic` this process's."""

    def __init__(
        self,
        *,
        store: Store,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        jobs: JobsSettings | None = None,
    ) -> None:
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._jobs = jobs

    def run(self) -> float | None:
        """Forget for a while; returns when to go on, where more is left."""
        until = self._monotonic() + BUDGET_S
        jobs = self._jobs or settings.COLLECTOR.jobs
        now = self._now()
        done = True
        for rule in rules(jobs):
            done = self._forget(rule, now, until) and done
        done = self._forget_minutes(now - timedelta(days=jobs.minutes_days), until) and done
        return None if done else AGAIN_S

    def _forget(self, rule: Rule, now: datetime, until: float) -> bool:
        """Returns whether nothing is left to forget.  Each rule has a batch, be it late."""
        before = now - timedelta(days=rule.days)
        total = 0
        while True:
            gone = self._store.forget(rule.state, before, type_id=rule.type_id, limit=BATCH_JOBS)
            total += gone
            if gone < BATCH_JOBS or self._monotonic() >= until:
                break
        if total:
            metrics.count_forgotten(rule.state, total)
            logger.info(
                "jobs past their time were forgotten",
                extra={"state": rule.state, "type_id": rule.type_id, "jobs": total},
            )
        return gone < BATCH_JOBS

    def _forget_minutes(self, before: datetime, until: float) -> bool:
        old = JobMinute.objects.filter(at__lt=before).order_by("at")
        while True:
            some = list(old.values_list("pk", flat=True)[:BATCH_MINUTES])
            JobMinute.objects.filter(pk__in=some).delete()
            if len(some) < BATCH_MINUTES:
                return True
            if self._monotonic() >= until:
                return False
