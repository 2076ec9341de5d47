"""Which stretches of a window are read from which level, so that each result counts once.

A level's rollups are read where they are complete; a day or hour that is not over, or is due to be
rolled up again, is `open` and read from the level below; an open minute from the results
themselves.  Marks older than a level's RECENT_S are not looked at: what was rolled up there is
taken as it is.  Reads the marks; keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from healthmon.history import due, statements
from healthmon.history.models import DAY, HOUR, MINUTE

RESULTS = 0
RECENT_S = {MINUTE: 1_200, HOUR: 3 * HOUR, DAY: 2 * DAY}
LEVELS = (DAY, HOUR, MINUTE)


@dataclass(slots=True)
class Cover:
    """`start` to `end` (seconds since 1970), from `level` downwards."""

    start: int
    end: int
    level: int
    opened: dict[int, set[int]] = field(default_factory=dict)
    ids: tuple[int, int] | None = None  # among which the open minutes' results are

    def holds(self, span_s: int, start: int) -> bool:
        """Whether a rollup counts."""
        if start in self.opened[span_s] or not self.start <= start < self.end:
            return False
        return all(
            start // above * above in self.opened[above]
            for above in LEVELS
            if span_s < above <= self.level
        )

    def holds_result(self, at: int) -> bool:
        """Whether a result counts; `at` in seconds."""
        minute = at // MINUTE * MINUTE
        if minute not in self.opened[MINUTE] or not self.start <= at < self.end:
            return False
        return all(
            at // above * above in self.opened[above]
            for above in (HOUR, DAY)
            if above <= self.level
        )

    def stretches(self) -> list[tuple[int, int, int]]:
        """(span, start, end) of the rollups to read; some in them may not count."""
        found = [(self.level, self.start, self.end)]
        for above, span_s in ((DAY, HOUR), (HOUR, MINUTE)):
            opened = self.opened[above]
            if above <= self.level and opened:
                found.append(
                    (span_s, max(min(opened), self.start), min(max(opened) + above, self.end))
                )
        return [(span_s, start, end) for span_s, start, end in found if start < end]


def cover(connection: Any, start: int, end: int, level: int, now: int) -> Cover:
    """How to read a window; `start` and `end` are taken out to whole spans of the level."""
    made = Cover(start // level * level, -(-end // level) * level, level)
    parts = " OR ".join(
        f"(span_s = {span_s:d} AND start >= "
        f"{statements.time_of(connection, max(made.start, (now - recent) // span_s * span_s))})"
        for span_s, recent in RECENT_S.items()
        if span_s <= level
    )
    before = statements.time_of(connection, made.end)
    marks = statements.fetch(
        connection,
        f"SELECT span_s, start, first_id, last_id FROM {due.TABLE} "  # noqa: S608
        f"WHERE due AND start < {before} AND ({parts})",
    )
    for span_s in LEVELS:
        now_in = now // span_s * span_s
        is_open = span_s != MINUTE and made.start <= now_in < made.end
        made.opened[span_s] = {now_in} if is_open else set()
    firsts, lasts = [], []
    for span_s, stored, first_id, last_id in marks:
        at = due.epoch_of(stored)
        for opened in LEVELS:
            # What is below it may be missing from all that is above.
            if opened >= span_s:
                made.opened[opened].add(at // opened * opened)
        if span_s == MINUTE:
            firsts.append(first_id)
            lasts.append(last_id)
    if firsts:
        made.ids = (min(firsts), max(lasts))
    return made
