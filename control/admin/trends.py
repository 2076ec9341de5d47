"""The dashboard's charts of the last 15 minutes: throughput, latency, buffer use, workers.

Pure functions over an overview; they run in request threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from control.admin.charts import Series, TimeChart
from control.admin.figures import duration, percent
from control.admin.overview import Overview
from control.admin.paths import Values
from control.admin.samples import PipelineHistory

NO_SAMPLES = (
    "No samples yet. A running process writes one every 5 seconds; the first shows here about "
    "15 seconds after its start."
)
NO_WRITES = "Nothing was written in these 15 minutes. Send a record and its write time shows here."


def total(histories: Sequence[PipelineHistory], name: str) -> Values:
    """The sum over pipelines; a moment that no pipeline knows stays unknown."""
    columns = zip(*(getattr(history, name) for history in histories), strict=True)
    totals: list[float | None] = []
    for column in columns:
        known = [value for value in column if value is not None]
        totals.append(sum(known) if known else None)
    return totals


def _any(values: Values) -> bool:
    return any(values)


def _telling(histories: Sequence[PipelineHistory], name: str) -> list[PipelineHistory]:
    """The pipelines that have anything to show; all while none has.

    Collector's own rest most of the time, and would fill the legend with noughts.
    """
    return [one for one in histories if _any(getattr(one, name))] or list(histories)


def throughput(overview: Overview) -> TimeChart:
    histories = overview.histories
    name = "accepted" if len(histories) < 2 else "accepted, all sinks"
    series = [Series(name=name, values=total(histories, "accepted"), colour=6, dashed=True)]
    for name, words, colour in (("refused", "refused requests", 2), ("dropped", "dropped", 5)):
        values = total(histories, name)
        if _any(values):
            series.append(Series(name=words, values=values, colour=colour))
    colours = (1, 3, 4)  # those of refused and dropped keep their meaning
    stacked = [
        Series(
            name=f"stored in {history.name}",
            values=history.stored,
            colour=colours[index % len(colours)],
        )
        for index, history in enumerate(_telling(histories, "stored"))
    ]
    return TimeChart(
        key="throughput",
        title="Throughput",
        unit="records/s",
        ends_at=overview.window.ends_at,
        step_s=overview.window.step_s,
        series=series if histories else (),
        stacked=stacked,
        empty=NO_SAMPLES,
    )


def latency(overview: Overview) -> TimeChart:
    histories = _telling(overview.histories, "p95")
    if len(histories) == 1:
        one = histories[0]
        series = [
            Series(name="p50", values=one.p50, colour=3),
            Series(name="p95", values=one.p95, colour=1),
            Series(name="p99", values=one.p99, colour=4),
        ]
    else:
        series = [
            Series(name=f"p95 {history.name}", values=history.p95, colour=(1, 3, 4)[index % 3])
            for index, history in enumerate(histories)
        ]
    return TimeChart(
        key="latency",
        title="Write latency",
        unit="per batch",
        ends_at=overview.window.ends_at,
        step_s=overview.window.step_s,
        series=series,
        text=duration,
        empty=NO_WRITES if histories else NO_SAMPLES,
    )


def buffers(overview: Overview) -> TimeChart:
    return TimeChart(
        key="buffer",
        title="Buffer use",
        unit="% of capacity",
        ends_at=overview.window.ends_at,
        step_s=overview.window.step_s,
        series=[
            Series(name=history.name, values=history.fill, colour=(1, 3, 4)[index % 3], area=True)
            for index, history in enumerate(_telling(overview.histories, "fill"))
        ],
        ceiling=1.0,
        text=percent,
        empty=NO_SAMPLES,
    )


def workers(overview: Overview) -> TimeChart:
    """How many workers each pipeline had that may have several, and the scaler's steps."""
    adjustable = {one.key for one in overview.pipelines if one.max_workers > one.min_workers}
    histories = [one for one in overview.histories if one.key in adjustable]
    counts = zip(*(history.steps for history in histories), strict=True)
    return TimeChart(
        key="workers",
        title="Workers",
        unit="threads; \N{BLACK UP-POINTING TRIANGLE} \N{BLACK DOWN-POINTING TRIANGLE} the scaler",
        ends_at=overview.window.ends_at,
        step_s=overview.window.step_s,
        series=[
            Series(
                name=history.name,
                values=history.workers,
                colour=(1, 3, 4)[index % 3],
                stepped=True,
            )
            for index, history in enumerate(histories)
        ],
        whole=True,
        steps=[(sum(up for up, _ in step), sum(down for _, down in step)) for step in counts],
        empty=NO_SAMPLES if not overview.histories else "No pipeline may have several workers.",
    )


def trend_charts(overview: Overview) -> list[TimeChart]:
    return [throughput(overview), latency(overview), buffers(overview), workers(overview)]
