"""The live page's charts of one pipeline: rates, queue, workers, batches, latency, refusals.

All share their time axis and the lines of what was changed, so that cause and effect are read
across them. Pure functions; they run in request threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.admin.charts import Series, TimeChart
from control.admin.figures import duration, percent
from control.admin.overlays import Event, Level
from control.admin.paths import Values
from control.admin.pipelines import PipelineView
from control.admin.samples import PipelineHistory, Window
from control.admin.trends import NO_SAMPLES

# With more than this many times the workers there are, the bound would flatten the line.
IN_SIGHT = 4
BLUE, ORANGE, TEAL, VIOLET, PINK, GREY = range(1, 7)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What every chart of the page shares."""

    window: Window
    tick_s: float
    words: str

    def chart(self, *, key: str, title: str, unit: str, **more: object) -> TimeChart:
        return TimeChart(
            key=key,
            title=title,
            unit=unit,
            ends_at=self.window.ends_at,
            step_s=self.window.step_s,
            tick_s=self.tick_s,
            **more,  # type: ignore[arg-type]
        )


def charts_of(
    pipeline: PipelineView, *, prefix: str, frame: Frame, events: Sequence[Event]
) -> list[TimeChart]:
    """The six charts; `prefix` makes their ids unique on the page."""
    history = pipeline.history
    if history is None:
        return [
            frame.chart(key=f"{prefix}-rates", title="Rates", unit="records/s", empty=NO_SAMPLES)
        ]
    return [
        _rates(history, prefix, frame, events),
        _queue(pipeline, history, prefix, frame, events),
        _workers(pipeline, history, prefix, frame, events),
        _batches(history, prefix, frame, events),
        _latency(history, prefix, frame, events),
        _refused(history, prefix, frame, events),
    ]


def _rates(
    history: PipelineHistory, prefix: str, frame: Frame, events: Sequence[Event]
) -> TimeChart:
    return frame.chart(
        key=f"{prefix}-rates",
        title="Rates",
        unit="records/s",
        series=[
            Series(name="stored", values=history.stored, colour=BLUE, area=True),
            Series(name="accepted", values=history.accepted, colour=GREY, dashed=True),
        ],
        events=events,
        empty=NO_SAMPLES,
    )


def _queue(
    pipeline: PipelineView,
    history: PipelineHistory,
    prefix: str,
    frame: Frame,
    events: Sequence[Event],
) -> TimeChart:
    peaks = any(
        (one or 0.0) > (other or 0.0)
        for one, other in zip(history.peak, history.fill, strict=False)
    )
    series = [Series(name="records", values=history.fill, colour=BLUE, area=True, dashed=peaks)]
    if peaks:
        # Between two samples a queue may fill and empty: refusals come from its highest.
        series.insert(0, Series(name="highest", values=history.peak, colour=BLUE, area=True))
    room = pipeline.pressed.backlog_max_bytes
    held = [None if one is None or not room else one / room for one in history.held_bytes]
    if any((one or 0.0) > (other or 0.0) for one, other in zip(held, history.fill, strict=True)):
        series.append(Series(name="bytes", values=held, colour=VIOLET))
    marks = pipeline.marks
    levels = [
        Level(value=value, name=name, colour=colour)
        for value, name, colour in (
            (marks.high, "refuse", PINK),
            (marks.shed, "shed", ORANGE),
            (marks.hint, "hint", GREY),
            (marks.low, "admit again", TEAL),
        )
        if value is not None
    ]
    return frame.chart(
        key=f"{prefix}-queue",
        title="Queue",
        unit="% of capacity",
        series=series,
        levels=levels,
        ceiling=1.0,
        text=percent,
        events=events,
        empty=NO_SAMPLES,
    )


def _workers(
    pipeline: PipelineView,
    history: PipelineHistory,
    prefix: str,
    frame: Frame,
    events: Sequence[Event],
) -> TimeChart:
    series = [Series(name="workers", values=history.workers, colour=BLUE, stepped=True)]
    # A limit above the workers there are bounds nothing.
    pairs = zip(history.write_limit, history.workers, strict=True)
    if any(limit is not None and one is not None and limit < one for limit, one in pairs):
        series.append(
            Series(
                name="writes at once, at most",
                values=history.write_limit,
                colour=ORANGE,
                stepped=True,
                dashed=True,
            )
        )
    most = max((one for one in history.workers if one is not None), default=0.0)
    levels = [Level(value=pipeline.min_workers, name="min", colour=TEAL)]
    if pipeline.max_workers <= IN_SIGHT * max(most, 1):
        levels.append(Level(value=pipeline.max_workers, name="max", colour=PINK))
    ups, downs = history.ups, history.downs
    return frame.chart(
        key=f"{prefix}-workers",
        title="Workers",
        unit=f"{pipeline.min_workers} to {pipeline.max_workers} allowed",
        series=series,
        levels=[level for level in levels if level.value],
        reach=True,
        whole=True,
        steps=history.steps,
        events=events,
        note=f"Scaler: up {ups}, down {downs} in {frame.words}." if ups or downs else "",
        empty=NO_SAMPLES,
    )


def _batches(
    history: PipelineHistory, prefix: str, frame: Frame, events: Sequence[Event]
) -> TimeChart:
    return frame.chart(
        key=f"{prefix}-batches",
        title="Batch size",
        unit="records",
        series=[
            Series(name="stored in one", values=history.per_batch, colour=TEAL),
            Series(
                name="closes at", values=history.batch_limit, colour=GREY, stepped=True, dashed=True
            ),
        ],
        events=events,
        empty=NO_SAMPLES,
    )


def _latency(
    history: PipelineHistory, prefix: str, frame: Frame, events: Sequence[Event]
) -> TimeChart:
    return frame.chart(
        key=f"{prefix}-latency",
        title="Write latency",
        unit="per batch",
        series=[
            Series(name="p50", values=history.p50, colour=TEAL),
            Series(name="p95", values=history.p95, colour=BLUE),
            Series(name="p99", values=history.p99, colour=VIOLET),
        ],
        text=duration,
        events=events,
        empty=f"Nothing was written in {frame.words}.",
    )


def _refused(
    history: PipelineHistory, prefix: str, frame: Frame, events: Sequence[Event]
) -> TimeChart:
    told = (
        ("requests refused", history.refused, ORANGE),
        ("records shed", history.shed, VIOLET),
        ("records dropped", _without(history.dropped, history.shed), PINK),
    )
    return frame.chart(
        key=f"{prefix}-refused",
        title="Refused and shed",
        unit="per second",
        series=[
            Series(name=name, values=values, colour=colour)
            for name, values, colour in told
            if any(values)
        ],
        events=events,
        empty=f"Nothing was refused, shed or dropped in {frame.words}.",
    )


def _without(all_of_it: Values, part: Values) -> Values:
    """What was dropped for another reason than shedding."""
    pairs = zip(all_of_it, part, strict=True)
    return [None if one is None else max(one - (of or 0.0), 0.0) for one, of in pairs]
