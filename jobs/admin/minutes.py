"""The last hour of jobs, minute by minute, from their rollup: as charts, and by type.

Runs in request threads; as many rows as there are types with jobs, times sixty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery

from control.admin.charts import Series, TimeChart
from control.admin.figures import duration
from jobs.admin.counting import Counts
from jobs.states import QUEUED, RUNNING, SCHEDULED
from jobs.store.models import JobMinute
from jobs.types.models import JobType

MINUTES = 60
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class TypeHour:
    """What the jobs of a type did in the last hour."""

    submitted: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    seconds: float = 0.0
    dead_by_minute: Sequence[int] = ()

    @property
    def ended(self) -> int:
        return self.succeeded + self.dead + self.cancelled

    @property
    def mean_s(self) -> float | None:
        return self.seconds / self.ended if self.ended else None

    @property
    def dead_share(self) -> float | None:
        return self.dead / self.ended if self.ended else None


class Hour:
    """The rows of the hour that ends with the minute of `now`.

    A minute in which nothing happened to a type's jobs has no row: as many wait as before.
    """

    def __init__(self, now: datetime, counts: Counts) -> None:
        self.ends = now.replace(second=0, microsecond=0) + MINUTE
        self.starts = self.ends - MINUTES * MINUTE
        self._counts = counts
        self._rows: dict[int, dict[int, JobMinute]] = {}
        for row in JobMinute.objects.filter(at__gte=self.starts, at__lt=self.ends):
            place = int((row.at - self.starts) / MINUTE)
            self._rows.setdefault(row.type_id, {})[place] = row
        self._before = self._latest_before()

    def _latest_before(self) -> dict[int, JobMinute]:
        earlier = JobMinute.objects.filter(type=OuterRef("pk"), at__lt=self.starts)
        last = JobType.objects.filter(pk__in=list(self._rows)).annotate(
            minute=Subquery(earlier.order_by("-at").values("pk")[:1])
        )
        keys = [pk for pk in last.values_list("minute", flat=True) if pk is not None]
        return {row.type_id: row for row in JobMinute.objects.filter(pk__in=keys)}

    @property
    def empty(self) -> bool:
        return not self._rows and not self._counts.total

    def by_type(self) -> dict[int, TypeHour]:
        found = {}
        for type_id, rows in self._rows.items():
            these = list(rows.values())
            found[type_id] = TypeHour(
                submitted=sum(row.submitted for row in these),
                succeeded=sum(row.succeeded for row in these),
                dead=sum(row.dead for row in these),
                cancelled=sum(row.cancelled for row in these),
                seconds=sum(row.seconds for row in these),
                dead_by_minute=[
                    rows[place].dead if place in rows else 0 for place in range(MINUTES)
                ],
            )
        return found

    def depth(self, state: str) -> list[float]:
        """How many waited (or ran) at each minute's end; the last is how many do now."""
        quiet = self._counts.by_type.keys() - self._rows.keys()
        total = [float(sum(self._counts.of(state, one) for one in quiet))] * MINUTES
        for type_id, rows in self._rows.items():
            before = self._before.get(type_id)
            level = getattr(before, state) if before is not None else 0
            for place in range(MINUTES):
                if place in rows:
                    level = getattr(rows[place], state)
                total[place] += max(0, level)
        total[-1] = float(self._counts.of(state))
        return total

    def sums(self, of: Callable[[JobMinute], float]) -> list[float]:
        total = [0.0] * MINUTES
        for rows in self._rows.values():
            for place, row in rows.items():
                total[place] += of(row)
        return total

    def mean_s(self) -> list[float | None]:
        seconds = self.sums(lambda row: row.seconds)
        ended = self.sums(lambda row: row.succeeded + row.dead + row.cancelled)
        return [s / n if n else None for s, n in zip(seconds, ended, strict=True)]


def charts(hour: Hour) -> list[TimeChart]:
    """Depth, ends and durations over one axis."""
    axis = {"ends_at": hour.ends, "step_s": 60.0, "tick_s": 900.0}
    none = hour.empty
    ended = [
        Series(name="dead", values=hour.sums(lambda row: row.dead), colour=5),
        Series(name="cancelled", values=hour.sums(lambda row: row.cancelled), colour=6),
        Series(name="succeeded", values=hour.sums(lambda row: row.succeeded), colour=3),
    ]
    return [
        TimeChart(
            key="jobs-depth",
            title="Depth",
            unit="jobs",
            # Lines: of areas on each other, what is 0 is seen at the height of what is below.
            series=()
            if none
            else [
                Series(name=state, values=hour.depth(state), colour=colour, stepped=True)
                for state, colour in ((QUEUED, 1), (SCHEDULED, 2), (RUNNING, 4))
            ],
            whole=True,
            empty="No job was submitted yet.",
            **axis,  # type: ignore[arg-type]
        ),
        TimeChart(
            key="jobs-ended",
            title="Ended",
            unit="jobs a minute",
            stacked=() if none else ended,
            whole=True,
            empty="No job has ended yet.",
            **axis,  # type: ignore[arg-type]
        ),
        TimeChart(
            key="jobs-duration",
            title="Duration",
            unit="mean, by minute",
            series=[Series(name="mean", values=hour.mean_s(), colour=2, area=True)],
            text=duration,
            empty="No job has ended in this hour.",
            **axis,  # type: ignore[arg-type]
        ),
    ]
