from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

from control.admin.charts import Series, TimeChart, describe, render, sparkline, time_ticks
from control.admin.paths import Scale, area_path, line_path, nice_ticks, runs, stack

ENDS = datetime(2026, 3, 4, 12, tzinfo=UTC)


def chart(**changes: object) -> TimeChart:
    values: dict[str, object] = {
        "key": "k",
        "title": "Throughput",
        "unit": "records/s",
        "ends_at": ENDS,
        "step_s": 10.0,
    }
    return TimeChart(**{**values, **changes})  # type: ignore[arg-type]


def test_ticks_are_round_and_reach_the_top() -> None:
    assert nice_ticks(0) == [0.0, 1.0]
    assert nice_ticks(1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert nice_ticks(87) == [0, 25, 50, 75, 100]
    assert nice_ticks(float("inf")) == [0.0, 1.0]
    for top in (0.003, 1.2, 7, 13, 999, 123_456):
        ticks = nice_ticks(top)
        assert ticks[-1] >= top * 0.999
        assert 2 <= len(ticks) <= 7


def test_a_gap_splits_the_line_and_a_lone_value_is_a_dot() -> None:
    values = [1.0, 2.0, None, 4.0, None]
    assert runs(values) == [(0, [1.0, 2.0]), (3, [4.0])]
    scale = Scale(count=5, top=4.0)
    path = line_path(values, scale)
    assert path == "M100,150 300,100 M600,0 h200"
    assert area_path(values, scale).count("Z") == 2


def test_a_gap_is_not_drawn_as_zero() -> None:
    html = render(chart(series=[Series(name="a", values=[5.0, None, 5.0])]))
    line = re.search(r'class="line c1" d="([^"]*)"', html)
    assert line
    assert ",200 " not in line[1] + " "


def test_stacked_series_stand_on_each_other() -> None:
    layers = stack([[1, 2, None], [1, None, 3]])
    assert layers[0] == ([0, 0, 0], [1, 2, None])
    assert layers[1] == ([1, 2, 0], [2, None, 3])


def test_values_above_a_ceiling_stay_inside() -> None:
    assert Scale(count=1, top=1.0).y(7.0) == "0"


def test_time_ticks_are_round_times_inside_the_chart() -> None:
    assert [label for _, label in time_ticks(chart(), 90, every=timedelta(minutes=5))] == [
        "11:50",
        "11:55",
    ]


def test_the_chart_is_well_formed_described_and_inert() -> None:
    evil = "<script>alert(1)</script>"
    html = render(
        chart(
            series=[Series(name=evil, values=[1.0, 3.0, 2.0])],
            stacked=[Series(name="db", values=[1.0, 1.0, None], colour=9)],
        )
    )
    assert "<script" not in html
    figure = ET.fromstring(html)
    svg = figure.find(".//svg")
    assert svg is not None
    labelled = svg.attrib["aria-labelledby"].split()
    ids = {element.attrib["id"] for element in svg if "id" in element.attrib}
    assert set(labelled) <= ids
    assert "highest 3" in svg.findtext("desc", "")
    assert len(svg.findall(".//rect")) == 3


def test_without_values_it_says_what_to_do() -> None:
    html = render(chart(series=[Series(name="a", values=[None, None])], empty="Send a record."))
    assert "Send a record." in html
    assert "<svg" not in html


def test_the_description_names_latest_and_highest() -> None:
    text = describe(chart(series=[Series(name="in", values=[9.0, 4.0, None])]))
    assert text == "In records/s. in: latest 4, highest 9."


def test_a_sparkline_has_a_name() -> None:
    assert 'aria-label="stored"' in sparkline([1.0, None, 2.0], label="stored")
