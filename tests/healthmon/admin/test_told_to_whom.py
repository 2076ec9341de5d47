"""What a page says of a target, an incident or a heartbeat, and to whom it says it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from control.outbox.models import OutboxMessage
from healthmon.admin import charts, problems, statuses
from healthmon.admin.targetform import label
from healthmon.models import (
    Channel,
    IncidentEntry,
    MaintenanceWindow,
    Notice,
    StatusPage,
    Target,
)
from healthmon.truth.uptime import Day
from tests.admin.cast import make_log
from tests.admin.test_apikeys import form
from tests.healthmon.admin.cast import group, living_checker, make_incident, make_target

pytestmark = pytest.mark.django_db

LIST = "/admin/healthmon/target/"


def heartbeat(**fields: Any) -> Target:
    return make_target("backup", kind="heartbeat", address="", interval_s=3600, **fields)


@pytest.mark.parametrize(
    ("permissions", "shown"),
    [(("view_target", "view_incident"), False),
     (("view_target", "view_incident", "view_logrecord"), True)],
)  # fmt: skip
def test_logs_are_for_those_who_may_view_records(
    client_who_may: Callable[..., Client], permissions: tuple[str, ...], shown: bool
) -> None:
    target = make_target("shop", "down")
    incident = make_incident(target)
    make_log(ago_s=3_600, service="shop", message="the password is hush")
    client = client_who_may(*permissions)
    for path in (f"{LIST}{target.pk}/", f"/admin/healthmon/incident/{incident.pk}/change/"):
        body = client.get(path).content.decode()
        assert ("the password is hush" in body) is shown, path
        assert ("those who may view log records" in body) is not shown, path


def test_an_uptime_says_of_how_much_it_is_known(admin_client: Client) -> None:
    young = make_target("young", "up", ago_s=80)
    body = admin_client.get(f"{LIST}{young.pk}/").content.decode()
    assert body.count("of 1 min 20 s known") == 4
    old = make_target("old", "up", ago_s=91 * 86_400)
    assert (
        " known"
        not in admin_client.get(f"{LIST}{old.pk}/")
        .content.decode()
        .partition('aria-labelledby="ribbon')[0]
        .partition('aria-label="Uptime"')[2]
    )


def test_the_charts_window_fits_the_history(admin_client: Client) -> None:
    target = make_target("shop", "up")
    assert admin_client.get(f"{LIST}{target.pk}/").context["window"].key == "1h"
    Target.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert admin_client.get(f"{LIST}{target.pk}/").context["window"].key == "24h"


def test_one_day_is_one_day() -> None:
    today = timezone.now().date()
    bad = [Day(date=today, status="down", ratio=0.9, down_s=90)]
    assert "down on the one day that is known;" in charts.ribbon_words(bad)
    assert "1 min 30 s" in charts.ribbon_words(bad)
    good = [Day(date=today, status="up", ratio=1.0, down_s=0)]
    assert charts.ribbon_words(good) == "never down on the one day that is known, of 1."


def test_an_incident_lasted_to_the_second(admin_client: Client) -> None:
    now = timezone.now()
    incident = make_incident(make_target("shop", "up"), closed_at=now)
    type(incident).objects.update(opened_at=now - timedelta(seconds=89.999))
    page = admin_client.get(f"/admin/healthmon/incident/{incident.pk}/change/")
    assert page.context["lasted"] == "1 min 30 s"


def test_a_comment_may_be_for_the_public(admin_client: Client) -> None:
    incident = make_incident(make_target("shop", "down"))
    path = f"/admin/healthmon/incident/{incident.pk}/"
    page = admin_client.post(f"{path}comment/", {"text": "ours"}, follow=True)
    assert "The comment is noted." in page.content.decode()
    page = admin_client.post(f"{path}comment/", {"text": "theirs", "public": "on"}, follow=True)
    assert "shown on status pages." in page.content.decode()
    said = IncidentEntry.objects.filter(kind="comment").values_list("text", "public")
    assert dict(said) == {"ours": False, "theirs": True}


def test_an_incident_leads_to_the_messages_that_told_of_it(
    admin_client: Client, client_who_may: Callable[..., Client]
) -> None:
    now = timezone.now()
    incident = make_incident(make_target("shop", "down"))
    other = make_incident(make_target("bank", "down"))
    channel = Channel.objects.create(name="ops", kind="webhook")
    for number, one in enumerate((incident, other)):
        Notice.objects.create(
            key=f"k{number}", channel=channel, target=one.target, incident=one, event="down",
            at=now, due_at=now, created_at=now, message_key=f"m{number}",
        )  # fmt: skip
        OutboxMessage.objects.create(
            dedupe_key=f"m{number}", sender="notify", channel="1", channel_name="ops",
            subject=f"DOWN: {one.target.name}", created_at=now, next_at=now,
            expires_at=now + timedelta(hours=1),
        )  # fmt: skip
    path = f"/admin/healthmon/incident/{incident.pk}/change/"
    body = admin_client.get(path).content.decode()
    assert "DOWN: shop" in body
    assert "DOWN: bank" not in body
    assert "DOWN: shop" not in client_who_may("view_incident").get(path).content.decode()


def test_a_heartbeats_form_asks_nothing_of_probing(admin_client: Client) -> None:
    body = admin_client.get(f"{LIST}add/?kind=heartbeat").content.decode()
    for name in ("timeout_s", "degraded_after_ms", "failure_threshold", "success_threshold",
                 "retry_interval_s"):  # fmt: skip
        assert f'name="{name}"' not in body, name
    assert "try-it" not in body
    assert 'name="option_grace_s"' in body
    web = admin_client.post(f"{LIST}fields/", {"kind": "http", "interval_s": "77"})
    fields = web.content.decode()
    assert 'name="timeout_s" value="10"' in fields
    assert 'name="interval_s" value="77"' in fields
    assert "try-it" in fields


def test_a_heartbeats_page_tells_of_its_pings(admin_client: Client) -> None:
    living_checker()
    target = heartbeat(options={"cron": "0 3 * * *", "time_zone": "Europe/Vienna", "grace_s": 90})
    body = admin_client.get(f"{LIST}{target.pk}/").content.decode()
    assert "Not heard of yet." in body
    assert "next probe" not in body
    settings = body[body.index('id="facts-heading"') :]
    for words in ("by cron 0 3 * * *", "Europe/Vienna", "90 s"):
        assert words in settings, words
    for words in ("Timeout", "failures in a row"):
        assert words not in settings, words
    for verb in ("", "/start", "/fail", "/&lt;exit code&gt;"):
        assert f"/ping/&lt;secret&gt;{verb}</code>" in body, verb


def test_a_probed_targets_page_has_its_thresholds(admin_client: Client) -> None:
    target = make_target("shop", "up", failure_threshold=1)
    body = admin_client.get(f"{LIST}{target.pk}/").content.decode()
    assert "1 failure in a row" in body
    assert "2 successes in a row" in body


def test_one_source_counts_what_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    living_checker()
    for number in range(3):
        make_target(f"t{number}", "down")
    counted = {**statuses.counts(statuses.watch()), "down": 7}
    monkeypatch.setattr(statuses, "counts", lambda watching: counted)
    (problem,) = problems.found()
    assert problem.title == "7 targets are down"


def test_an_export_brings_the_groups_that_its_targets_name(admin_client: Client) -> None:
    group("unused")
    chosen = make_target("shop", group=group("shops"))
    data = {"action": "export", "index": "0", "_selected_action": [chosen.pk]}
    file = tomllib.loads(admin_client.post(LIST, data).content.decode())
    assert [one["name"] for one in file["groups"]] == ["shops"]
    assert [one["name"] for one in file["targets"]] == ["shop"]


def test_what_changes_nothing_is_said_to_stay(admin_client: Client) -> None:
    chosen = make_target("shop")
    data = {
        "action": "change_settings", "index": "0", "_selected_action": [chosen.pk],
        "step": "preview", "timeout_s": "10", "degraded_after_ms": "800", "remove_tags": "nosuch",
    }  # fmt: skip
    shown = admin_client.post(LIST, data)
    changes = {one.name: one.wanted for one in shown.context["changes"]}
    assert changes["timeout"] == "as it is"
    assert changes["tag nosuch"] == "as it is"
    assert changes["degraded after (ms)"] == "800 ms"
    body = shown.content.decode()
    # Enter presses the first.
    assert body.index('value="apply"') < body.index('value="preview"')


def test_a_field_is_named_in_words() -> None:
    assert label("verify_tls") == "Verify TLS"
    assert label("max_latency_ms") == "Max latency (milliseconds)"


def test_numbers_without_a_fraction_are_shown_without_one(admin_client: Client) -> None:
    body = admin_client.get(f"{LIST}add/").content.decode()
    assert 'value="30.0"' not in body
    assert 'name="interval_s" value="30"' in body
    assert body.index('name="timeout_s"') < body.index('id="try-it"')


def test_a_heartbeats_latency_is_not_shown_as_the_jobs(admin_client: Client) -> None:
    living_checker()
    heartbeat()
    assert "p95" not in admin_client.get(LIST).content.decode()


def test_a_single_point_can_be_seen() -> None:
    assert 'alone" d="M50.0' in charts.sparkline([None, 3.0, None], label="x")
    assert "alone" not in charts.sparkline([2.0, 3.0], label="x")


def test_moments_are_written_alike_in_every_list(admin_client: Client) -> None:
    at = datetime(2026, 3, 4, 17, 29, tzinfo=UTC)
    MaintenanceWindow.objects.create(title="Upgrade", starts_at=at, all_targets=True)
    page = StatusPage.objects.create(title="Ours", slug="ours")
    StatusPage.objects.filter(pk=page.pk).update(updated_at=at)
    for name in ("maintenancewindow", "statuspage"):
        body = admin_client.get(f"/admin/healthmon/{name}/").content.decode()
        assert "2026-03-04 17:29 UTC" in body, name


@pytest.mark.parametrize(
    ("scopes", "tried"), [(["logs"], "/logs "), (["read", "targets"], "/api/targets ")]
)
def test_a_new_key_is_tried_on_what_it_may(
    admin_client: Client, scopes: list[str], tried: str
) -> None:
    sent = form(admin_client, scopes=scopes)
    body = admin_client.post("/admin/control/apikey/add/", sent).content.decode()
    assert f"{tried}-H" in body
    assert body.count("curl ") == 1
