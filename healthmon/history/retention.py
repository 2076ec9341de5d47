"""How long each level of the history is kept, and what of it is forgotten.

Results go with the days of their table (`control.partitions`).  Here go rollups, marks, flips,
incidents that are over, and all of targets that were deleted: rows, some thousands a transaction,
for a bounded time a call.  Runs on the housekeeping thread, outside transactions; any number of
callers at once do no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connections
from django.db.models import Exists, OuterRef

from healthmon.history import due, statements
from healthmon.history.models import DAY, HOUR, MINUTE
from healthmon.targets.models import Target
from healthmon.truth.models import Flip, Incident

ALIAS = "records"
RESULTS = 0  # as a span: results themselves
INTERVAL_S = 600.0
BUDGET_S = 5.0
CHUNK_ROWS = 2_000
CHUNK_FLIPS = 500
_MOST_TARGETS = 500

GoOn = Callable[[], bool]


@dataclass(slots=True)
class Forgotten:
    """How many rows went."""

    results: int = 0
    rollups: int = 0
    marks: int = 0
    flips: int = 0
    incidents: int = 0


def kept_days(span_s: int) -> int:
    """How many days a level is kept; `RESULTS` (0) for results themselves."""
    kept = settings.COLLECTOR.monitoring
    return {
        RESULTS: kept.results_days,
        MINUTE: kept.minute_rollups_days,
        HOUR: kept.hour_rollups_days,
        DAY: kept.day_rollups_days,
    }[span_s]


def first_kept(span_s: int, now: datetime) -> int:
    """The first moment (seconds since 1970) of a level that is kept: a midnight (UTC)."""
    today = int(now.timestamp()) // DAY * DAY
    return today - kept_days(span_s) * DAY


def run() -> Forgotten:
    """The housekeeping task."""
    until = time.monotonic() + BUDGET_S
    return forget_old(datetime.now(UTC), go_on=lambda: time.monotonic() < until)


def forget_old(now: datetime, *, go_on: GoOn = lambda: True, using: str = ALIAS) -> Forgotten:
    """Delete what is past its time, until `go_on` says no; what is left goes the next time."""
    gone = Forgotten()
    for span_s in (MINUTE, HOUR, DAY):
        where = f"span_s = {span_s:d} AND start < "
        where += statements.time_of(connections[using], first_kept(span_s, now))
        gone.rollups += _delete(statements.ROLLUPS, where, go_on=go_on, using=using)
    where = "NOT due AND start < "
    where += statements.time_of(connections[using], first_kept(RESULTS, now))
    gone.marks += _delete(due.TABLE, where, go_on=go_on, using=using)
    gone.flips += _forget_flips(now, go_on)
    gone.incidents += _forget_incidents(now, go_on)
    _forget_deleted(gone, go_on=go_on, using=using)
    return gone


def _forget_flips(now: datetime, go_on: GoOn) -> int:
    """Flips before the cut, but for each target's newest before it: that tells the status then."""
    cut = _flips_cut(now)
    newer = Flip.objects.filter(
        target_id=OuterRef("target_id"), seq__gt=OuterRef("seq"), at__lt=cut
    )
    old = Flip.objects.filter(Exists(newer), at__lt=cut).order_by("pk")
    deleted = 0
    while go_on():
        some = list(old.values_list("pk", flat=True)[:CHUNK_FLIPS])
        if not some:
            break
        deleted += Flip.objects.filter(pk__in=some).delete()[0]
    return deleted


def _forget_incidents(now: datetime, go_on: GoOn) -> int:
    old = Incident.objects.filter(closed_at__lt=_flips_cut(now)).order_by("pk")
    deleted = 0
    while go_on():
        some = list(old.values_list("pk", flat=True)[:CHUNK_FLIPS])
        if not some:
            break
        Incident.objects.filter(pk__in=some).delete()
        deleted += len(some)
    return deleted


def _flips_cut(now: datetime) -> datetime:
    return now - timedelta(days=settings.COLLECTOR.monitoring.flips_days)


def _forget_deleted(gone: Forgotten, *, go_on: GoOn, using: str) -> None:
    """Everything of targets that are no more."""
    for table in (statements.ROLLUPS, statements.RESULTS):
        if not go_on():
            return
        # Stored ones first: whoever is stored then and not a target now was deleted.
        stored = _stored_targets(table, using=using)
        living = set(Target.objects.values_list("pk", flat=True))
        lost = [target_id for target_id in stored if target_id not in living]
        for target_id in lost[:_MOST_TARGETS]:
            rows = _delete(table, f"target_id = {target_id:d}", go_on=go_on, using=using)
            if table == statements.ROLLUPS:
                gone.rollups += rows
            else:
                gone.results += rows


def _stored_targets(table: str, *, using: str) -> Iterable[int]:
    """The targets that have rows, by hops along the index: no more steps than targets."""
    rows = statements.fetch(
        connections[using],
        f"WITH RECURSIVE hop(n) AS (SELECT min(target_id) FROM {table} UNION ALL "  # noqa: S608
        f"SELECT (SELECT min(target_id) FROM {table} WHERE target_id > hop.n) "
        "FROM hop WHERE hop.n IS NOT NULL) SELECT n FROM hop WHERE n IS NOT NULL",
    )
    return [row[0] for row in rows]


def _delete(table: str, where: str, *, go_on: GoOn, using: str) -> int:
    """Delete rows, a chunk a transaction, so that writers get their turn."""
    deleted = 0
    while go_on():
        with connections[using].cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {table} WHERE id IN "  # noqa: S608
                f"(SELECT id FROM {table} WHERE {where} LIMIT {CHUNK_ROWS:d})"
            )
            rows = cursor.rowcount
        deleted += rows
        if rows < CHUNK_ROWS:
            break
    return deleted
