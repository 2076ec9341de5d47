"""Every page of health monitoring: accessible, within a phone's width, inert, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from healthmon.models import Heartbeat, MaintenanceWindow, Ping, Target
from healthmon.truth import incidents
from tests.admin.cast import make_log
from tests.browser.conftest import OpenPage, serious_findings, too_wide
from tests.healthmon.admin.cast import (
    EVIL,
    group,
    living_checker,
    make_incident,
    make_results,
    make_rollups,
    make_target,
)

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/healthmon/target/"


def _many() -> None:
    living_checker()
    shops = group("shops")
    for number in range(12):
        target = make_target(
            f"shop-{number}.example.test",
            ("up", "up", "degraded", "up")[number % 4],
            tags=("web", "eu"),
            group=shops,
            ago_s=3_600 * (number + 1),
        )
        make_results(target, 3)
        make_rollups(target, hours=30)
    make_target(
        "down-with-a-long-name-" * 6,
        "down",
        reason="connection refused " * 20,
        tags=[f"tag-{n}" for n in range(9)],
        address="http://127.0.0.1:9/" + "long/" * 60,
    )
    make_target("lost", "unknown", reason="no result came in time")
    make_target("asleep", "paused", paused=True)
    make_target("fresh")
    make_target(EVIL, "down", reason=EVIL, tags=[EVIL[:60]], address=EVIL)
    make_target("nightly backup", "up", kind="heartbeat", address="backup", interval_s=86_400)


def _list() -> str:
    _many()
    return LIST


def _list_without_checker() -> str:
    make_target("shop", "up")
    make_target("bank", "down")
    living_checker(seen_ago_s=600)
    return LIST


def _empty_list() -> str:
    return LIST


def _detail_of(target: Target) -> str:
    return f"{LIST}{target.pk}/"


def _detail() -> str:
    living_checker()
    parent = make_target("core switch", "up")
    target = make_target(
        "shop.example.test",
        "down",
        tags=("web", "eu"),
        group=group("shops"),
        ago_s=5_400,
        notes="Restart the shop:\n  systemctl restart shop\nThen look at the queue.",
        slo_percent=99.9,
        service="shop",
        owner=None,
        degraded_after_ms=800,
    )
    target.parents.add(parent)
    now = timezone.now()
    past = [
        ("up", 80),
        ("down", 60),
        ("up", 59.8),
        ("degraded", 30),
        ("up", 29.5),
        ("down", 10),
        ("up", 9.99),
    ]
    before = "new"
    for seq, (status, days) in enumerate(past, 10):
        target.flips.create(
            seq=seq,
            from_status=before,
            to_status=status,
            at=now - timedelta(days=days),
            reason="503 instead of 200-299",
        )
        before = status
    make_results(target, 40)
    make_rollups(target, hours=200)
    make_incident(target, ago_s=5_400)
    make_incident(target, ago_s=86_400 * 10, closed_at=now - timedelta(days=9.9))
    for number in range(5):
        make_log(ago_s=5_400 + number, service="shop", level="ERROR", message="database gone " * 9)
    return _detail_of(target)


def _hostile_detail() -> str:
    target = make_target(
        EVIL, "down", reason=EVIL, address=EVIL, notes=EVIL, service=EVIL, tags=[EVIL[:60]]
    )
    make_results(target, 3, error=EVIL, outcome="failed", address=EVIL)
    make_incident(target, cause=EVIL)
    make_log(ago_s=3_600, service=EVIL, level=EVIL, message=EVIL)
    return _detail_of(target)


def _new_detail() -> str:
    return _detail_of(make_target("fresh"))


def _heartbeat() -> str:
    living_checker()
    target = make_target("backup", "up", kind="heartbeat", address="backup", interval_s=86_400)
    now = timezone.now()
    Heartbeat.objects.create(target=target, seq=3, last_ping_at=now, updated_at=now)
    for number in range(3):
        Ping.objects.create(
            target=target,
            record_id=number,
            at=now,
            kind="fail",
            exit_code=2,
            remote="10.0.0.1",
            body=EVIL,
        )
    return _detail_of(target)


def _add_form() -> str:
    return f"{LIST}add/"


def _change_form() -> str:
    target = make_target("shop", "up", tags=("web",))
    target.parents.add(make_target("switch", "up"))
    return f"{LIST}{target.pk}/change/"


def _incidents() -> str:
    for number in range(4):
        target = make_target(f"shop-{number}", "down", notes="Restart it. " * 30)
        make_incident(target, ago_s=600 * number)
    make_incident(target, ago_s=9_000, closed_at=timezone.now(), cause=EVIL)
    return "/admin/healthmon/incident/"


def _incident() -> str:
    target = make_target("shop", "down", notes="Restart it.", service="shop")
    incident = make_incident(target)
    incidents.comment(incident, None, EVIL)
    make_log(ago_s=3_600, service="shop")
    return f"/admin/healthmon/incident/{incident.pk}/change/"


def _windows() -> str:
    now = timezone.now()
    MaintenanceWindow.objects.create(title="Upgrade", starts_at=now, all_targets=True)
    MaintenanceWindow.objects.create(
        title="Night", starts_at=now, cron="0 3 * * *", time_zone="Europe/Vienna"
    )
    return "/admin/healthmon/maintenancewindow/"


def _window_form() -> str:
    make_target("shop", tags=("web", "eu"), group=group("shops"))
    return "/admin/healthmon/maintenancewindow/add/"


def _tags() -> str:
    make_target("shop", tags=("web", EVIL[:60]))
    return "/admin/healthmon/tag/"


def _dashboard() -> str:
    _many()
    return "/admin/"


PAGES: list[Callable[[], str]] = [
    _list,
    _list_without_checker,
    _empty_list,
    _detail,
    _hostile_detail,
    _new_detail,
    _heartbeat,
    _add_form,
    _change_form,
    _incidents,
    _incident,
    _windows,
    _window_form,
    _tags,
    _dashboard,
]


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__.strip("_"))
def test_a_page_is_accessible_narrow_and_inert(
    open_page: OpenPage, make: Callable[[], str]
) -> None:
    path = make()
    light = open_page(path)
    assert serious_findings(light) == []
    assert light.locator("img[src=x]").count() == 0
    assert not too_wide(light)
    dark = open_page(path, dark=True, width=390)
    assert serious_findings(dark) == []
    assert not too_wide(dark)
