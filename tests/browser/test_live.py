"""The live page in a browser: accessible in light and dark, on a phone, by keyboard, refreshed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from control.models import Process
from sinks.models import SinkChange
from tests.admin.cast import (
    EVIL,
    SINK,
    ledger_row,
    make_process,
    make_samples,
    open_breaker,
    pipeline_stats,
)
from tests.browser.conftest import OpenPage, serious_findings, too_wide

pytestmark = pytest.mark.django_db(transaction=True)

LIVE = "/admin/live/"


def pipeline(**changes: Any) -> dict[str, Any]:
    flow = {
        "min_workers": 1,
        "max_workers": 4,
        "batch_limit": 5_000,
        "write_limit": 2,
        "hint_watermark": 0.7,
        "high_watermark": 0.8,
        "low_watermark": 0.6,
        "shed_watermark": 0.75,
    }
    return pipeline_stats(**{**flow, **changes})


def changed(ago_s: float, **fields: Any) -> None:
    values = {"key": SINK, "name": "database", "action": "changed", "who": "ann", **fields}
    SinkChange.objects.create(at=timezone.now() - timedelta(seconds=ago_s), **values)


def story() -> Process:
    """Everything that the page can show, at once."""
    ledger = [ledger_row(tenant=f"tenant-{n}-{'t' * 60}", in_flight=900 - n) for n in range(9)]
    others = [
        pipeline(key="2", name="archive-" + "long-" * 14, breaker=open_breaker()),
        pipeline(key="3", name=EVIL, paused=True, state="paused"),
        *(pipeline(key=f"own{n}", name=f"own {n}", internal=True) for n in range(4)),
    ]
    full = pipeline(refusing=True, held_records=330_000, workers=4, busy_workers=4)
    process = make_process(stats={"pipelines": [full, *others]}, ledger=ledger)
    make_samples(process, refused=50, dropped=40, shed=40, write_limit=2, scaled_up=1)
    changed(30, fields={"max_workers": [2, 6], "batch": [None, "x" * 200]})
    changed(300, fields={"paused": [False, True]}, who=EVIL)
    changed(303, fields={"paused": [True, False]})
    return process


def test_it_is_accessible_narrow_and_inert(open_page: OpenPage) -> None:
    story()
    light = open_page(LIVE)
    assert serious_findings(light) == []
    assert light.locator("img[src=x]").count() == 0
    assert light.locator(".live-pipeline").count() == 3
    dark = open_page(LIVE, dark=True, width=390)
    assert serious_findings(dark) == []
    assert not too_wide(dark)


def test_the_lines_stand_where_the_list_says(open_page: OpenPage) -> None:
    story()
    page = open_page(f"{LIVE}?sink={SINK}")
    labels = page.locator("figure[id$='-queue'] .chart-events span")
    assert labels.all_inner_texts() == ["1\N{EN DASH}2", "3"]
    plot = page.locator(".live-pipeline .chart-plot svg").nth(1).bounding_box()
    label = labels.last.bounding_box()
    line = page.locator(".live-pipeline .chart-plot").nth(1).locator(".events path").last
    drawn = line.bounding_box()
    assert plot is not None
    assert label is not None
    assert drawn is not None
    assert plot["x"] <= drawn["x"] <= plot["x"] + plot["width"]
    # The label stands on its line, above the plot.
    assert abs(label["x"] + label["width"] / 2 - drawn["x"]) < 2
    assert label["y"] + label["height"] <= plot["y"] + 2


def test_it_is_worked_by_keyboard_and_keeps_what_was_chosen(open_page: OpenPage) -> None:
    story()
    page = open_page(LIVE)
    link = page.get_by_role("link", name="5 min", exact=True)
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/live/?minutes=5")
    assert (
        page.get_by_role("link", name="5 min", exact=True).get_attribute("aria-current") == "true"
    )
    page.locator(f"a[href*='sink={SINK}']").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/admin/live/?sink={SINK}&minutes=5")
    assert page.locator(".live-pipeline").count() == 1


def test_it_refreshes_where_the_reader_is(open_page: OpenPage) -> None:
    process = story()
    page = open_page(f"{LIVE}?sink={SINK}&minutes=5")
    page.locator("#live-span-15").focus()
    process.stats = {"pipelines": [pipeline(held_records=1_000, workers=3)]}
    process.save()
    page.evaluate("htmx.trigger('#panels', 'refresh')")
    page.wait_for_selector(".live-figures:has-text('1,000 records')")
    assert page.evaluate("document.activeElement.id") == "live-span-15"
    assert page.locator(".live-pipeline").count() == 1
    assert page.locator("#live-span-5").get_attribute("aria-current") == "true"


def test_it_rests_when_told_to(open_page: OpenPage) -> None:
    story()
    page = open_page(LIVE)
    page.get_by_role("link", name="Pause", exact=True).click()
    page.wait_for_url("**/admin/live/?live=off")
    assert page.locator("[hx-get]").count() == 0
    page.get_by_role("link", name="Resume", exact=True).click()
    page.wait_for_selector("[hx-get]")


def test_the_dashboard_leads_to_it(open_page: OpenPage) -> None:
    story()
    page = open_page("/admin/")
    assert serious_findings(page) == []
    page.locator("#live-page").click()
    page.wait_for_selector("h1:has-text('Live')")
