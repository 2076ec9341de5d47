"""What is drawn over a chart: levels, numbered events, the scaler's steps; and idle processes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

from control.admin import livecharts, overlays
from control.admin.buckets import bucketed
from control.admin.charts import Series, TimeChart, describe, render
from control.admin.livecharts import Frame
from control.admin.overlays import Event, Level
from control.admin.paths import Scale, line_path
from control.admin.pipelines import PipelineView
from control.admin.samples import Window
from tests.admin.test_samples import sample

ENDS = datetime(2026, 3, 4, 12, tzinfo=UTC)
WINDOW = Window(ends_at=ENDS, step_s=10.0, count=60)
FRAME = Frame(window=WINDOW, tick_s=60.0, words="these 10 minutes")


def chart(**changes: Any) -> TimeChart:
    values = {"key": "k", "title": "Queue", "unit": "%", "ends_at": ENDS, "step_s": 10.0}
    return TimeChart(**{**values, "series": [Series(name="in", values=[1.0] * 10)], **changes})


def event(ago_s: float, number: int = 1) -> Event:
    return Event(at=ENDS - timedelta(seconds=ago_s), number=str(number), words="paused (by ann)")


def drawn(one: TimeChart, group: str) -> list[str]:
    figure = ET.fromstring(render(one))
    return [path.attrib["d"] for path in figure.findall(f".//g[@class='{group}']/path")]


def test_a_stepped_line_has_no_slopes() -> None:
    scale = Scale(count=4, top=4.0)
    assert line_path([1.0, 1.0, 3.0, None], scale, stepped=True) == ("M125,150 H375 V150 H625 V50")
    assert line_path([2.0, None, None, None], scale, stepped=True) == "M0,100 h250"


def test_levels_are_drawn_where_they_are_on_the_axis() -> None:
    levels = [Level(value=0.8, name="refuse"), Level(value=9.0, name="far above")]
    assert drawn(chart(levels=levels, ceiling=1.0), "levels") == ["M0,40 H1000"]
    assert len(drawn(chart(levels=levels, reach=True), "levels")) == 2
    assert "refuse at 0.8" in describe(chart(levels=levels))


def test_an_event_is_a_line_at_its_moment() -> None:
    events = [event(50), event(0), event(101), event(-1)]
    assert drawn(chart(events=events), "events") == ["M500,0 V200", "M1000,0 V200"]
    assert "1: paused (by ann)." in describe(chart(events=[event(50)]))
    titles = [
        title.text for title in ET.fromstring(render(chart(events=[event(45)]))).iter("title")
    ]
    assert "in: 1\n1: paused (by ann)" in str(titles[6])


def test_events_that_stand_close_share_a_label() -> None:
    events = [event(50, 1), event(48, 2), event(20, 3)]
    one = chart(events=events, series=[Series(name="in", values=[1.0] * 10)])
    placed = overlays.inside(events, starts_at=one.starts_at, span_s=one.span_s)
    assert [label.label for label in overlays.labels(placed)] == ["1\N{EN DASH}2", "3"]


def test_events_are_escaped() -> None:
    evil = Event(at=ENDS, number="1", words="<script>alert(1)</script>")
    assert "<script" not in render(chart(events=[evil]))


def test_steps_stand_under_their_bucket() -> None:
    steps = overlays.steps([(1, 0), (0, 0), (2, 1), (0, 0)])
    assert [(one.share, one.kind) for one in steps] == [
        ("12.50", "up"),
        ("62.50", "up"),
        ("62.50", "down"),
    ]
    assert overlays.told_of([(0, 0)]) == ""


def test_whole_numbers_have_whole_ticks() -> None:
    figure = ET.fromstring(render(chart(whole=True)))
    words = [span.text for span in figure.findall(".//div[@class='chart-y']/span")]
    assert words == ["0", "1", "2", "3", "4"]


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [sample(5.0 * step, **changes) for step in range(120)]


def test_an_idle_process_thins_no_queue_and_adds_no_worker() -> None:
    busy = rows(held_records=80, workers=4, write_limit=4)
    idle = rows(process_id="p2", accepted=0, stored=0, held_records=0, write_limit=1)
    (history,) = bucketed([*busy, *idle], WINDOW)
    assert history.fill[-1] == 0.8
    assert history.workers[-1] == 4
    assert history.write_limit[-1] == 4
    (history,) = bucketed(idle, WINDOW)
    assert history.workers[-1] == 1


def test_of_two_busy_processes_the_fullest_counts_and_workers_are_added_up() -> None:
    (history,) = bucketed(
        [*rows(held_records=80, workers=4), *rows(process_id="p2", batch_limit=9_000)], WINDOW
    )
    assert (history.fill[-1], history.workers[-1], history.batch_limit[-1]) == (0.8, 5, 9_000)


def test_a_process_that_rests_for_a_moment_still_counts() -> None:
    second = rows(process_id="p2")
    for row in second[:8]:  # the last 40 s
        row.update(accepted=0, stored=0, held_records=0)
    (history,) = bucketed([*rows(), *second], WINDOW)
    assert history.workers[-1] == 2


def test_a_process_that_rests_for_long_counts_as_long_as_it_worked() -> None:
    second = rows(process_id="p2")
    for row in second[:80]:  # the last 400 s
        row.update(accepted=0, stored=0, held_records=0)
    (history,) = bucketed([*rows(), *second], WINDOW)
    assert history.workers[-1] == 1
    assert history.workers[5] == 2


def test_steps_are_counted_at_their_moment() -> None:
    told = [sample(0, scaled_up=1), sample(5, scaled_down=1), sample(20, scaled_up=2)]
    (history,) = bucketed(told, WINDOW)
    assert list(history.steps[-3:]) == [(2, 0), (0, 0), (1, 1)]
    assert (history.ups, history.downs) == (3, 1)


def test_gauges_are_how_things_stood_at_the_end_of_a_sample() -> None:
    (history,) = bucketed([sample(12, workers=2), sample(7, workers=3), sample(2)], WINDOW)
    assert list(history.workers[-2:]) == [2, 1]


def charts(view: PipelineView) -> dict[str, TimeChart]:
    found = livecharts.charts_of(view, prefix="p1", frame=FRAME, events=[])
    return {one.title: one for one in found}


def view(told: list[dict[str, Any]], **stats: Any) -> PipelineView:
    (history,) = bucketed(told, WINDOW)
    one = PipelineView(key="db", name="database", history=history)
    one.add_part({"backlog_max_bytes": 10_000, "min_workers": 1, "max_workers": 4, **stats})
    return one


def names(one: TimeChart) -> list[str]:
    return [series.name for series in one.series]


def test_bytes_are_drawn_where_they_run_out_first() -> None:
    assert names(charts(view(rows(held_bytes=100)))["Queue"]) == ["records"]
    assert names(charts(view(rows(held_bytes=9_000)))["Queue"]) == ["records", "bytes"]


def test_a_write_limit_is_drawn_where_it_binds() -> None:
    assert names(charts(view(rows(workers=4, write_limit=4)))["Workers"]) == ["workers"]
    limited = charts(view(rows(workers=4, write_limit=2)))["Workers"]
    assert names(limited) == ["workers", "writes at once, at most"]


def test_what_was_shed_is_not_counted_as_dropped_too() -> None:
    assert charts(view(rows()))["Refused and shed"].series == []
    both = charts(view(rows(dropped=50, shed=50)))["Refused and shed"]
    assert names(both) == ["records shed"]
    more = charts(view(rows(dropped=60, shed=50)))["Refused and shed"]
    assert names(more) == ["records shed", "records dropped"]


def test_a_batch_is_as_large_as_what_was_stored_of_it() -> None:
    assert view(rows(stored=200, batches=2)).history.per_batch[-1] == 100  # type: ignore[union-attr]
    assert view(rows(stored=0, batches=0)).history.per_batch[-1] is None  # type: ignore[union-attr]


def test_the_queue_is_drawn_as_full_as_it_was_between_samples() -> None:
    rows = [sample_of_queue(peak_fill=0.8), sample_of_queue(ago_s=30, peak_fill=0.0)]
    (history,) = bucketed(rows, WINDOW)
    view = PipelineView(key="db", name="database", history=history)
    queue = livecharts.charts_of(view, prefix="p", frame=FRAME, events=())[1]
    assert [one.name for one in queue.series] == ["highest", "records"]
    assert "highest: latest 80 %, highest 80 %" in describe(queue)
    calm = bucketed([sample_of_queue(peak_fill=0.1)], WINDOW)[0]
    view = PipelineView(key="db", name="database", history=calm)
    queue = livecharts.charts_of(view, prefix="p", frame=FRAME, events=())[1]
    assert [one.name for one in queue.series] == ["records"]


def sample_of_queue(*, ago_s: float = 5, **changes: Any) -> dict[str, Any]:
    return sample(0, at=ENDS - timedelta(seconds=ago_s), **changes)


def test_labels_of_levels_never_lie_on_each_other() -> None:
    def named(*levels: tuple[float, str]) -> list[str]:
        one = chart(levels=[Level(value=v, name=n) for v, n in levels], ceiling=1.0)
        figure = ET.fromstring(render(one))
        return [str(span.text) for span in figure.findall(".//div[@class='chart-levels']/span")]

    assert named((1.0, "min"), (1.0, "max")) == ["min = max"]
    assert named((0.8, "refuse"), (0.75, "shed"), (0.7, "hint"), (0.6, "admit again")) == [
        "refuse, shed",
        "hint",
        "admit again",
    ]
