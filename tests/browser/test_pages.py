"""Every page an operator meets: accessible, within a phone's width, inert, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from control.auth.keys import create_key
from control.models import Tenant
from tests.admin.cast import (
    EVIL,
    SINK,
    make_event,
    make_log,
    make_ping,
    make_process,
    make_samples,
    make_worker_runs,
    pipeline_stats,
)
from tests.browser.conftest import OpenPage, serious_findings, too_wide

pytestmark = pytest.mark.django_db(transaction=True)


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
    _empty_dashboard,
    _hostile_dashboard,
    _records,
    _hostile_records,
    _no_records,
    _record,
    _hostile_record,
    _pings,
    _events,
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
