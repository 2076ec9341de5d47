"""A sink's tally, moved together with its letters.

Every transaction that changes states of letters locks the tallies of their sinks first, in the
order of their keys (after a redrive's task, if it has one): counting is then exact and nobody
waits in a circle.  SQLite's transactions exclude each other anyway.
"""

from __future__ import annotations

from django.db import connection, models
from django.db.models import Count, F

from sinks.deadletters.models import REDRIVING, STATES, WAITING, DeadLetter, DeadLetterTally


def lock(sink: str, name: str = "") -> None:
    """Hold the sink's tally until the transaction ends; it is made when there is none."""
    known = _locked(sink)
    if known is None:
        DeadLetterTally.objects.bulk_create(
            [DeadLetterTally(sink=sink, sink_name=name or sink)], ignore_conflicts=True
        )
        _locked(sink)
    elif name and name != known:
        DeadLetterTally.objects.filter(pk=sink).update(sink_name=name)


def _locked(sink: str) -> str | None:
    """The name of the sink whose tally is now held, or None.  Asked for with every few letters."""
    table = connection.ops.quote_name(DeadLetterTally._meta.db_table)
    wait = " FOR UPDATE" if connection.features.has_select_for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT sink_name FROM {table} WHERE sink = %s{wait}",  # noqa: S608
            [sink],
        )
        row = cursor.fetchone()
    return None if row is None else str(row[0])


def entered(sink: str, count: int) -> None:
    """New letters, waiting."""
    if not count:
        return
    table = connection.ops.quote_name(DeadLetterTally._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET entered = entered + %s, waiting = waiting + %s "  # noqa: S608
            "WHERE sink = %s",
            [count, count, sink],
        )


def moved(sink: str, source: str, target: str, count: int) -> None:
    """Letters have gone from one state to another."""
    if count:
        DeadLetterTally.objects.filter(pk=sink).update(
            **{source: F(source) - count, target: F(target) + count}
        )


def forgotten(sink: str, state: str, count: int) -> None:
    """Rows of letters in that state were deleted; call with the tally locked."""
    row = DeadLetterTally.objects.get(pk=sink)
    row.forgotten[state] = int(row.forgotten.get(state, 0)) + count
    row.save(update_fields=["forgotten"])


def differences(sink: str) -> dict[str, int]:
    """State -> by how much the tally differs from the rows; empty when all is well.

    Counts the sink's rows, so it costs what they are.
    """
    tally = DeadLetterTally.objects.get(pk=sink)
    rows: dict[str, int] = dict(
        DeadLetter.objects.filter(sink=sink)
        .order_by()
        .values_list("state")
        .annotate(models_count=Count("pk"))
    )
    found = {
        state: getattr(tally, state) - rows.get(state, 0) - int(tally.forgotten.get(state, 0))
        for state in STATES
    }
    return {state: by for state, by in found.items() if by}


def waiting() -> list[DeadLetterTally]:
    """The tallies of sinks with letters that have not ended."""
    some = models.Q(**{f"{WAITING}__gt": 0}) | models.Q(**{f"{REDRIVING}__gt": 0})
    return list(DeadLetterTally.objects.filter(some))
