"""What the public sees: the truth in words, and nothing else."""

from __future__ import annotations

import json
import re
import threading
import xml.etree.ElementTree as ElementTree
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.test import Client

from healthmon.history.models import ProbeResult
from healthmon.pages import views
from healthmon.pages.badge import percent
from healthmon.pages.board import summarise
from healthmon.pages.cache import Cache
from healthmon.pages.drawing import lasted
from healthmon.targets.models import Target
from healthmon.truth.models import Incident
from tests.healthmon.pages.cast import ADDRESS, INTERNAL, Shop

pytestmark = pytest.mark.django_db

FORMS = ("/status/shop", "/status/shop.json", "/status/shop.rss", "/badge/shop.svg")


def text_of(client: Client, path: str = "/status/shop") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


def test_a_page_tells_what_is_up_and_what_is_not(shop: Shop, client: Client) -> None:
    text = text_of(client)
    assert "1 of 4 services is down" in text
    names = re.findall(r'class="name">([^<]+)<', text)
    assert names == ["Checkout", "Web", "Ledger", "Search"]
    words = re.findall(r'aria-hidden="true"></span>([A-Z][a-z ]+)</span>', text)
    assert words == ["Down", "Operational", "Degraded", "Operational"]
    assert re.findall(r"<h2[^>]*>([^<]+)<", text) == [
        "Maintenance under way", "Open incidents", "Front", "Back office", "Other services",
        "Announced maintenance", "Past incidents",
    ]  # fmt: skip
    assert "We are on it." in text
    assert "down since" in text
    assert "2 h" in text
    # Two hours of ninety days.
    assert "99.907 % uptime" in text
    assert text.count('class="ribbon"') == 4
    assert "<script" not in text
    assert "http-equiv" not in text


@pytest.mark.parametrize("path", FORMS)
def test_nothing_internal_is_told(shop: Shop, client: Client, path: str) -> None:
    text = text_of(client, path)
    for internal in (
        INTERNAL, "10.1.2.3", ADDRESS, "Secret thing", "Elsewhere", "Hidden works", "Of others",
    ):  # fmt: skip
        assert internal not in text


def test_what_was_marked_internal_stays_so(shop: Shop, client: Client) -> None:
    Incident.objects.update(public=False)
    text = text_of(client)
    assert "Open incidents" not in text
    assert "None in the last 14 days." in text


def test_each_part_can_be_switched_off(shop: Shop, client: Client) -> None:
    shop.page.show_uptime = shop.page.show_incidents = shop.page.show_ribbon = False
    shop.page.save()
    text = text_of(client)
    assert "ribbon" not in text
    assert "uptime" not in text
    assert "incident" not in text.lower()
    found = json.loads(text_of(client, "/status/shop.json"))
    assert found["incidents"] == []
    assert set(found["groups"][0]["targets"][0]) == {"name", "status", "since"}
    assert client.get("/badge/shop.svg?metric=uptime").status_code == 404


def test_latency_is_shown_where_asked_for(shop: Shop, client: Client) -> None:
    shop.page.show_latency = True
    shop.page.save()
    assert "p95_ms" in json.loads(text_of(client, "/status/shop.json"))["groups"][0]["targets"][0]


def test_the_json_says_the_same(shop: Shop, client: Client) -> None:
    answer = client.get("/status/shop.json")
    assert answer["Access-Control-Allow-Origin"] == "*"
    found = json.loads(answer.content)
    assert (found["status"], found["summary"]) == ("down", "1 of 4 services is down")
    checkout, web = found["groups"][0]["targets"]
    assert (checkout["name"], checkout["status"]) == ("Checkout", "down")
    assert web["uptime_90d"] == pytest.approx(1 - 2 / (90 * 24), abs=1e-6)
    assert len(web["days"]) == 90
    assert [one["target"] for one in found["incidents"]] == ["Checkout", "Web"]
    assert [(one["title"], one["running"]) for one in found["maintenance"]] == [
        ("Reindexing", True),
        ("New disks", False),
    ]


def test_the_feed_is_rss(shop: Shop, client: Client) -> None:
    Target.objects.filter(name="Web").update(name="We\x0bb <b>&")
    answer = client.get("/status/shop.rss")
    assert answer["Content-Type"].startswith("application/rss+xml")
    channel = ElementTree.fromstring(answer.content).find("channel")
    assert channel is not None
    titles = [item.findtext("title") for item in channel.findall("item")]
    assert titles == [
        "Checkout: down",
        "We\N{REPLACEMENT CHARACTER}b <b>&: resolved",
        "Maintenance: Reindexing",
        "Maintenance: New disks",
    ]
    guids = [item.findtext("guid") for item in channel.findall("item")]
    assert len(set(guids)) == 4
    assert channel.findtext("link") == "http://testserver/status/shop"


@pytest.mark.parametrize("path", FORMS)
def test_unpublished_is_as_if_it_were_not_there(shop: Shop, client: Client, path: str) -> None:
    shop.page.published = False
    shop.page.save()
    hidden, absent = client.get(path), client.get(path.replace("shop", "nothing"))
    assert hidden.status_code == absent.status_code == 404
    first, second = hidden.json(), absent.json()
    assert {**first, "request_id": ""} == {**second, "request_id": ""}


def test_names_are_shown_as_text(shop: Shop, client: Client) -> None:
    Target.objects.filter(name="Web").update(name="<script>alert(1)</script>")
    shop.page.title = "<img src=x onerror=alert(1)>"
    shop.page.save()
    text = text_of(client)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_headers_for_caches_and_browsers(shop: Shop, client: Client) -> None:
    answer = client.get("/status/shop")
    assert answer["Cache-Control"] == "public, max-age=10"
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert not answer.cookies
    again = client.get("/status/shop", headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again["Cache-Control"] == "public, max-age=10"
    other = client.get("/status/shop", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200
    assert client.post("/status/shop").status_code == 405


def test_a_crowd_costs_one_reading(shop: Shop, client: Client, django_assert_num_queries) -> None:
    text_of(client)
    with django_assert_num_queries(0):
        for path in ("/status/shop", "/status/shop", "/status/shop.json", "/status/shop.rss"):
            text_of(client, path)


def test_the_number_of_queries_does_not_grow(
    shop: Shop, client: Client, django_assert_max_num_queries
) -> None:
    for number in range(60):
        Target.objects.create(name=f"more {number}", group=shop.targets["Web"].group)
    with django_assert_max_num_queries(20):
        text_of(client)


def test_a_page_of_too_many_targets_says_so(shop: Shop, client: Client, monkeypatch) -> None:
    from healthmon.pages import board

    monkeypatch.setattr(board, "MAX_TARGETS", 3)
    assert "1 more services are not listed" in text_of(client)


def test_an_empty_page_says_so(shop: Shop, client: Client) -> None:
    shop.page.groups.clear()
    shop.page.tags.clear()
    text = text_of(client)
    assert "Nothing is shown here yet" in text
    assert "No service is shown on this page yet." in text


class TestBadges:
    def test_of_a_page(self, shop: Shop, client: Client) -> None:
        answer = client.get("/badge/shop.svg")
        assert answer["Content-Type"] == "image/svg+xml"
        assert ElementTree.fromstring(answer.content).get("aria-label") == "status: down"
        assert 'aria-label="uptime 90 d: ' in text_of(
            client, "/badge/shop.svg?metric=uptime&days=90"
        )

    def test_of_a_target_that_allows_it(self, shop: Shop, client: Client) -> None:
        assert "status: down" in text_of(client, "/badge/checkout.svg")
        pk = shop.targets["Checkout"].pk
        assert "status: down" in text_of(client, f"/badge/target-{pk}.svg")
        assert "uptime 7 d: 99.4" in text_of(client, "/badge/checkout.svg?metric=uptime&days=7")
        assert "p95 24 h: not known" in text_of(client, "/badge/checkout.svg?metric=latency")

    def test_of_another_there_is_none(self, shop: Shop, client: Client) -> None:
        web = shop.targets["Web"].pk
        for path in (
            "web.svg",
            f"target-{web}.svg",
            "checkout.svg?metric=reason",
            "checkout.svg?metric=uptime&days=5",
            "checkout.svg?metric=uptime&days=²",
        ):
            assert client.get(f"/badge/{path}").status_code == 404, path

    @pytest.mark.parametrize(
        ("ratio", "said"),
        [(1, "100 %"), (0.9999999, "99.999 %"), (0.995, "99.5 %"), (0, "0 %"), (0.5, "50 %")],
    )
    def test_uptime_is_never_rounded_up(self, ratio: float, said: str) -> None:
        assert percent(ratio) == said


@pytest.mark.parametrize(
    ("statuses", "status", "said"),
    [
        ([], "new", "Nothing is shown here yet"),
        (["new"], "new", "Nothing is known yet"),
        (["up", "new"], "up", "All services are operational"),
        (["up", "unknown"], "unknown", "The state of some services is not known"),
        (["up", "maintenance", "unknown"], "maintenance", "Maintenance is under way"),
        (["up", "degraded"], "degraded", "1 of 2 services is degraded"),
        (["down", "down", "degraded"], "down", "2 of 3 services are down"),
        (["down", "down", "unknown"], "down", "Everything is down"),
    ],
)
def test_the_summary(statuses: list[str], status: str, said: str) -> None:
    assert summarise(statuses) == (status, said)


def test_durations_in_words() -> None:
    assert lasted(timedelta(seconds=59)) == "less than a minute"
    assert lasted(timedelta(days=1, minutes=5)) == "1 d 5 min"
    assert lasted(timedelta(seconds=-5)) == "less than a minute"


class TestCache:
    def test_it_is_bounded_and_the_longest_unasked_goes(self) -> None:
        cache: Cache[int] = Cache(max_entries=2, monotonic=lambda: 0.0)
        for key in (1, 2, 1, 3):
            cache.get(key, lambda: 0)
        assert len(cache) == 2
        assert cache.get(1, lambda: 9) == 0
        assert cache.get(2, lambda: 9) == 9

    def test_it_grows_old(self) -> None:
        now = [0.0]
        cache: Cache[int] = Cache(fresh_s=10, monotonic=lambda: now[0])
        assert cache.get("k", lambda: 1) == 1
        now[0] = 9.9
        assert cache.get("k", lambda: 2) == 1
        now[0] = 10.1
        assert cache.get("k", lambda: 2) == 2

    def test_while_one_makes_it_the_others_have_what_was(self) -> None:
        now = [0.0]
        cache: Cache[str] = Cache(fresh_s=10, monotonic=lambda: now[0])
        cache.get("k", lambda: "old")
        now[0] = 20.0
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> str:
            begun.set()
            assert go_on.wait(180)
            return "new"

        maker = threading.Thread(target=cache.get, args=("k", slow))
        maker.start()
        assert begun.wait(180)
        assert cache.get("k", lambda: "mine") == "old"
        go_on.set()
        maker.join(180)
        assert cache.get("k", lambda: "mine") == "new"

    def test_a_database_away_leaves_the_last_page_for_an_hour(self) -> None:
        now = [0.0]
        cache: Cache[str] = Cache(fresh_s=10, stale_s=3600, monotonic=lambda: now[0])

        def away() -> str:
            raise OperationalError("gone")

        with pytest.raises(OperationalError):
            cache.get("k", away)
        cache.get("k", lambda: "old")
        now[0] = 3000.0
        assert cache.get("k", away) == "old"
        now[0] = 3700.0
        with pytest.raises(OperationalError):
            cache.get("k", away)


def test_measures_of_a_latency_badge_come_from_the_history(shop: Shop, client: Client) -> None:
    assert ProbeResult.objects.count() == 0
    views.forget()
    assert "not known" in text_of(client, "/badge/checkout.svg?metric=latency")
