"""Every page an operator meets: accessible, within a phone's width, inert, in light and dark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from control.admin import logdirs
from control.auth.keys import create_key
from control.models import Tenant
from sinks.models import SinkConfig
from tests.admin.cast import (
    EVIL,
    SINK,
    adopted_log,
    ledger_row,
    log_stats,
    make_event,
    make_log,
    make_ping,
    make_process,
    make_samples,
    make_worker_runs,
    open_breaker,
    pipeline_stats,
)
from tests.admin.frames import frame_bytes
from tests.admin.test_counters import add, make_counter
from tests.browser.conftest import OpenPage, serious_findings, too_wide

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _own_logs(settings: Any, tmp_path: Path) -> None:
    log = dataclasses.replace(settings.COLLECTOR.log, directory=tmp_path / "wal")
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, log=log)


def _dashboard() -> str:
    failing = pipeline_stats(
        key=SINK[:-1] + "1",
        name="archive " + "with-a-very-long-name-" * 4,
        required=False,
        held_records=390_000,
        last_error="OSError: [Errno 28] No space left on device: " + "/very-long-path" * 12,
        last_error_at=timezone.now().timestamp(),
        state="failing",
        failures=4,
    )
    process = make_process(stats={"pipelines": [pipeline_stats(), failing]})
    make_samples(process)
    make_process(pid=2, last_seen_at=timezone.now() - timedelta(minutes=4))
    return "/admin/"


def _troubled_dashboard() -> str:
    """Everything that can be wrong, at once."""
    stuck = pipeline_stats(
        key=SINK[:-1] + "2", name="stuck", state="stuck", hung_workers=["sink-stuck-1"] * 3
    )
    half = pipeline_stats(key=SINK[:-1] + "3", name="half", breaker=open_breaker(state="half_open"))
    alarm = {"kind": "imbalance", "sink": "database", "tenant": "t" * 80, "records": 7}
    process = make_process(
        stats={
            "pipelines": [pipeline_stats(breaker=open_breaker(cause="refused " * 60)), stuck, half],
            "log": log_stats(state="full", error="No space left", adopted=[adopted_log()]),
            "alarms": [{**alarm, "since": timezone.now().timestamp(), "log_id": "a1b2c3"}],
        },
        ledger=[
            ledger_row(sink="database", tenant="t" * 80, imbalance=7, dropped={"corrupt": 3}),
            ledger_row(sink="database", tenant="other"),
        ],
    )
    make_samples(process)
    make_process(pid=2, log_id="d4e5f6", stopped_at=timezone.now(), ledger=[ledger_row()])
    return "/admin/"


def _log() -> str:
    adopted = [adopted_log(), adopted_log(log_id=EVIL)]
    make_process(stats={"log": log_stats(adopted=adopted)})
    make_process(pid=2, stats={"log": log_stats(state="failing", error="I/O error " * 40)})
    place = logdirs.directory()
    (place / "orphan").mkdir(parents=True)
    (place / "quarantine").mkdir()
    (place / "quarantine" / "a1b2c3-segment-000000000001-64.bin").write_bytes(frame_bytes()[:-8])
    return "/admin/log/"


def _quarantine_delete() -> str:
    return _log() + "quarantine/a1b2c3-segment-000000000001-64.bin/delete/"


def _empty_dashboard() -> str:
    return "/admin/"


def _hostile_dashboard() -> str:
    make_process(host=EVIL, stats={"pipelines": [pipeline_stats(name=EVIL, last_error=EVIL)]})
    return "/admin/"


def _records() -> str:
    for n in range(12):
        make_log(ago_s=n, level=("INFO", "WARN", "ERROR", "FATAL", "DEBUG", "TRACE")[n % 6])
    make_log(ago_s=0.5, message="w" * 3000, service="s" * 200, tenant="t" * 200)
    return "/admin/ingest/logrecord/"


def _hostile_records() -> str:
    text = EVIL + "\u202e\x1b[31m"
    make_log(level=text, service=text, message=text, tenant=text, payload={text: text})
    return "/admin/ingest/logrecord/"


def _record() -> str:
    log = make_log(trace_id="4bf92f3577b34da6a3ce929d0e0e4736", payload={"a": ["w" * 3000, 1]})
    return f"/admin/ingest/logrecord/{log.pk}/change/"


def _hostile_record() -> str:
    log = make_log(level=EVIL, service=EVIL, message=EVIL, payload={EVIL: [EVIL]})
    return f"/admin/ingest/logrecord/{log.pk}/change/"


def _no_records() -> str:
    return "/admin/ingest/logrecord/?q=absent&from=nonsense"


def _pings() -> str:
    for n, status in enumerate(("up", "degraded", "down")):
        make_ping(ago_s=n + 1, status=status)
    return "/admin/ingest/healthping/"


def _events() -> str:
    make_event(user_id=EVIL, action=EVIL)
    return "/admin/ingest/auditevent/"


def _counters() -> str:
    _counter()
    make_counter("n" * 200, tenant="t" * 60, labels={"l" * 60: "v" * 200})
    return "/admin/ingest/counter/"


def _no_counters() -> str:
    return "/admin/ingest/counter/"


def _counter() -> str:
    counter = make_counter(EVIL, labels={EVIL: EVIL, "shop": "berlin"})
    add(counter, now=timezone.now(), m1=10, m3=40, m4=-5, m20=7)
    return f"/admin/ingest/counter/{counter.pk}/change/"


def _sink_form() -> str:
    return reverse("admin:sinks_sinkconfig_add")


def _sinks() -> str:
    return reverse("admin:sinks_sinkconfig_changelist")


def _key_form() -> str:
    return "/admin/control/apikey/add/"


def _keys() -> str:
    tenant, _ = Tenant.objects.get_or_create(slug="default")
    create_key(tenant=tenant, name=EVIL, scopes=["logs"])
    return "/admin/control/apikey/"


def _processes() -> str:
    make_process(host="h" * 200)
    return "/admin/control/process/"


def _process() -> str:
    process = make_process()
    make_worker_runs(process)
    return f"/admin/control/process/{process.pk}/change/"


def _workers() -> str:
    make_worker_runs(make_process())
    return "/admin/control/workerrun/"


PAGES: list[Callable[[], str]] = [
    _dashboard,
    _troubled_dashboard,
    _log,
    _quarantine_delete,
    _empty_dashboard,
    _hostile_dashboard,
    _records,
    _hostile_records,
    _no_records,
    _record,
    _hostile_record,
    _pings,
    _events,
    _counters,
    _no_counters,
    _counter,
    _sink_form,
    _sinks,
    _key_form,
    _keys,
    _processes,
    _process,
    _workers,
]


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__.strip("_"))
def test_a_page_is_accessible_narrow_and_inert(
    open_page: OpenPage, make: Callable[[], str]
) -> None:
    path = make()
    light = open_page(path)
    assert serious_findings(light) == []
    assert light.locator("img[src=x]").count() == 0
    dark = open_page(path, dark=True, width=390)
    assert serious_findings(dark) == []
    assert not too_wide(dark)


def test_the_login_page_and_the_first_login(open_page: OpenPage) -> None:
    for width, dark in ((1280, False), (390, True)):
        page = open_page("/admin/", login=False, width=width, dark=dark)
        assert "Collector" in page.title()
        assert serious_findings(page) == []
        assert not too_wide(page)
    page.fill("#id_username", "admin")
    page.fill("#id_password", "a-long-password")
    page.press("#id_password", "Enter")
    page.wait_for_selector("h1:has-text('Operations')")


OUTSIDE = """() => [...document.querySelectorAll(
    'fieldset input, fieldset select, fieldset textarea')]
  .filter(e => e.getClientRects().length && e.type !== 'hidden')
  .map(e => [e.name, e.getBoundingClientRect().right,
             e.closest('fieldset').getBoundingClientRect().right])
  .filter(([name, right, edge]) => right > edge)"""


# Each word, with its no-break spaces, that does not lie in one line.
BROKEN_WORDS = """
selector => [...document.querySelectorAll(selector)].flatMap(label => {
  const text = label.firstChild, broken = [];
  for (const word of text.data.matchAll(/[^ \\n]+/g)) {
    const range = document.createRange();
    range.setStart(text, word.index);
    range.setEnd(text, word.index + word[0].length);
    const tops = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
    if (tops.size > 1) broken.push(word[0]);
  }
  return broken;
})
"""


@pytest.mark.parametrize("backend", ["postgres.PostgresSink", "file.FileSink"])
def test_no_field_of_the_sink_form_is_cut_off(open_page: OpenPage, backend: str) -> None:
    path = f"{reverse('admin:sinks_sinkconfig_add')}?backend=sinks.backends.{backend}"
    for width in (390, 1280):
        page = open_page(path, width=width)
        for summary in page.locator("fieldset summary").all():
            summary.click()
        assert page.locator("#id_route_types, [name=route_types]").first.is_visible()
        assert page.evaluate(OUTSIDE) == []
        assert not too_wide(page)


def test_no_label_of_the_sink_form_breaks_within_a_word_or_a_unit(open_page: OpenPage) -> None:
    path = f"{reverse('admin:sinks_sinkconfig_add')}?backend=sinks.backends.null.NullSink"
    page = open_page(path, width=1_280)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    broken = page.evaluate(BROKEN_WORDS, "[class*=field-pipeline_] label")
    assert broken == []


def test_a_counters_tenant_stands_within_its_panel(open_page: OpenPage) -> None:
    page = open_page(_counter(), width=1_280)
    padding = page.locator(".panel-figures > p").evaluate(
        "one => [getComputedStyle(one).paddingLeft, getComputedStyle(one).paddingTop]"
    )
    assert all(float(side.removesuffix("px")) >= 8 for side in padding)


def test_the_list_of_sinks_fits_a_common_screen(open_page: OpenPage) -> None:
    SinkConfig.objects.create(
        name="warehouse-of-the-west",
        backend="sinks.backends.postgres.PostgresSink",
        route_types=["log", "health", "event"],
        route_tenants=["acme", "globex"],
        min_level="WARN",
    )
    page = open_page(_sinks(), width=1280)
    table = page.locator("#result_list").bounding_box()
    box = page.locator(".results").bounding_box()
    assert table is not None
    assert box is not None
    assert table["x"] + table["width"] <= box["x"] + box["width"]


def test_a_sink_is_deleted_with_its_backlog_discarded(open_page: OpenPage) -> None:
    process = make_process()
    row = SinkConfig.objects.create(name="old", backend="sinks.backends.memory.MemorySink")
    for width in (390, 1280):
        page = open_page(reverse("admin:sinks_sinkconfig_delete", args=[row.pk]), width=width)
        assert serious_findings(page) == []
        assert not too_wide(page)
    assert page.get_by_label("Deliver what it holds").is_checked()
    page.get_by_label("Discard it").check()
    page.get_by_role("button", name="Delete the sink").click()
    page.wait_for_selector("text=What waited for sink old is discarded")
    assert process.requests.get().args == {"sink": str(row.pk)}
