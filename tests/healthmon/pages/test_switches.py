"""What a status page's switches take away, and how much a long page is."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.test import Client

from healthmon.pages.badge import percent
from healthmon.pages.board import Group, Line
from healthmon.pages.drawing import count
from healthmon.pages.models import SWITCHES
from healthmon.pages.views import forget
from healthmon.targets.models import Target, TargetGroup
from tests.healthmon.pages.cast import Shop

pytestmark = pytest.mark.django_db


def off(shop: Shop, *names: str) -> None:
    for name in names:
        setattr(shop.page, name, False)
    shop.page.save()


def text_of(client: Client, path: str = "/status/shop") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


@pytest.mark.parametrize(
    ("switch", "path", "mark"),
    [
        ("show_groups", "/status/shop", "Back office"),
        ("show_ribbon", "/status/shop", "<svg"),
        ("show_uptime", "/status/shop", "% uptime"),
        ("show_maintenance", "/status/shop", "New disks"),
        ("show_maintenance", "/status/shop.rss", "New disks"),
        ("show_maintenance", "/status/shop.json", "New disks"),
        ("show_incidents", "/status/shop", "Open incidents"),
        ("offer_rss", "/status/shop", "RSS"),
        ("offer_json", "/status/shop", "JSON"),
    ],
)
def test_a_switch_takes_its_part_away(
    shop: Shop, client: Client, switch: str, path: str, mark: str
) -> None:
    assert mark in text_of(client, path)
    off(shop, switch)
    forget()
    assert mark not in text_of(client, path)


@pytest.mark.parametrize(
    ("switch", "path"),
    [
        ("offer_rss", "/status/shop.rss"),
        ("offer_json", "/status/shop.json"),
        ("offer_badge", "/badge/shop.svg"),
    ],
)
def test_what_is_not_offered_is_not_there(
    shop: Shop, client: Client, switch: str, path: str
) -> None:
    assert client.get(path).status_code == 200
    off(shop, switch)
    forget()
    assert client.get(path).status_code == 404
    assert client.get("/status/shop").status_code == 200


def test_a_ribbon_without_the_figure_and_the_other_way_round(shop: Shop, client: Client) -> None:
    off(shop, "show_uptime")
    (line, *_) = json.loads(text_of(client, "/status/shop.json"))["groups"][0]["targets"]
    assert "uptime_90d" not in line
    assert len(line["days"]) == 90


def test_every_switch_is_in_the_admins_form(shop: Shop, admin_client: Client) -> None:
    answer = admin_client.get(f"/admin/healthmon/statuspage/{shop.page.pk}/change/")
    text = answer.content.decode()
    for name in SWITCHES:
        assert f'name="{name}"' in text
    off(shop, "offer_rss")
    text = admin_client.get(f"/admin/healthmon/statuspage/{shop.page.pk}/change/").content.decode()
    assert "/status/shop.rss" not in text
    assert "/status/shop.json" in text


def test_groups_say_how_they_are_and_those_in_trouble_stand_open(
    shop: Shop, client: Client
) -> None:
    calm = TargetGroup.objects.create(name="Calm", order=9)
    shop.page.groups.add(calm)
    for number in range(30):
        name = f"calm {number}"
        shop.targets[name] = Target.objects.create(name=name, group=calm)
        shop.move(name, "up", shop.now - timedelta(hours=2))
    text = text_of(client)
    groups = {name: bool(is_open) for is_open, name in re.findall(
        r'<details class="group"( open)?>\s*<summary><h2>([^<]+)<', text)}  # fmt: skip
    assert groups == {"Front": True, "Back office": True, "Calm": False, "Other services": False}
    counts = re.findall(r'class="count">([^<]+)<', text)
    assert counts == [
        "1 down, 1 operational of 2", "1 degraded", "30 operational", "1 operational",
    ]  # fmt: skip


def test_of_what_is_not_long_known_it_is_said_so(shop: Shop, client: Client) -> None:
    assert "known for" not in text_of(client)
    name = "Fresh"
    shop.targets[name] = Target.objects.create(name=name, group=shop.targets["Web"].group)
    shop.move(name, "up", shop.now - timedelta(minutes=10))
    forget()
    assert re.findall(r"100.000 % uptime, known for 1[01] min", text_of(client))


def test_figures_stand_under_one_another() -> None:
    assert percent(0.7286, aligned=True) == "72.860 %"
    assert percent(1, aligned=True) == "100.000 %"


def test_the_worst_is_told_first() -> None:
    group = Group(
        name="g",
        lines=[
            Line(name="", status=status, since=None, days=[], uptime=None, known_s=0, p95_ms=None)
            for status in ("up", "paused", "down", "unknown", "down")
        ],
    )
    assert count(group) == "2 down, 1 not known, 1 operational, 1 paused of 5"


def test_a_long_page_is_no_more_than_a_photograph(shop: Shop, client: Client) -> None:
    group = shop.targets["Web"].group
    for number in range(246):
        name = f"more {number}"
        shop.targets[name] = Target.objects.create(name=name, group=group)
        shop.move(name, "up", shop.now - timedelta(days=100))
    size = len(text_of(client))
    assert size < 200_000, size
