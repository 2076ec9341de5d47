"""The page of a target, incidents, the dashboard's panel and its problems."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from control.models import Process
from control.ports.logs import logs_of
from healthmon.admin import charts, problems
from healthmon.admin.figures import seconds_text, uptime_text
from healthmon.history import queries
from healthmon.models import Incident, IncidentEntry, Target
from healthmon.truth.uptime import Day
from tests.admin.cast import make_log
from tests.healthmon.admin.cast import (
    living_checker,
    make_incident,
    make_results,
    make_rollups,
    make_target,
)

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("window", ["", "1h", "24h", "7d", "30d", "90d", "nonsense"])
def test_a_targets_page_in_every_window(admin_client: Client, window: str) -> None:
    living_checker()
    target = make_target("shop", "down", slo_percent=99.9, notes="Restart it.")
    make_results(target, 30)
    make_rollups(target, hours=30)
    make_incident(target)
    make_log(ago_s=3_600, service="shop", message="database gone")
    response = admin_client.get(f"/admin/healthmon/target/{target.pk}/", {"window": window})
    body = response.content.decode()
    for words in ("Restart it.", "database gone", "connection refused", "As a table", "Older"):
        assert words in body, words


def test_the_page_stands_while_the_history_is_away(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("the database is away")

    for name in ("latency", "last_results", "percentiles", "sparklines", "newest"):
        monkeypatch.setattr(queries, name, away)
    target = make_target("shop", "down")
    for path in ("", f"{target.pk}/"):
        assert admin_client.get(f"/admin/healthmon/target/{path}").status_code == 200


def test_logs_of_a_service_are_bounded_by_window_and_number() -> None:
    for number in range(60):
        make_log(ago_s=100 + number, sequence=number, service="shop", message=f"line {number}")
    make_log(ago_s=100, sequence=99, service="other")
    make_log(ago_s=9_000, service="shop", message="long ago")
    now = timezone.now()
    found = logs_of("shop", start=now - timedelta(minutes=10), end=now)
    assert found is not None
    assert len(found.lines) == 50
    assert found.more
    assert found.lines[0].message == "line 0"
    assert "service=shop" in found.url
    few = logs_of("other", start=now - timedelta(minutes=10), end=now, limit=5)
    assert few is not None
    assert len(few.lines) == 1
    assert not few.more


def test_open_incidents_stand_first(admin_client: Client) -> None:
    target = make_target("shop", "down")
    make_incident(target, ago_s=10, closed_at=timezone.now(), cause="the new one")
    make_incident(target, ago_s=9_000, cause="the open one")
    body = admin_client.get("/admin/healthmon/incident/").content.decode()
    assert body.index("the open one") < body.index("the new one")


def test_looking_is_not_deciding(client_who_may: Callable[..., Client]) -> None:
    incident = make_incident(make_target("shop", "down"))
    client = client_who_may("view_incident")
    path = f"/admin/healthmon/incident/{incident.pk}/"
    page = client.get(f"{path}change/")
    assert page.status_code == 200
    assert "Acknowledge</button>" not in page.content.decode()
    for name in ("acknowledge", "comment", "postmortem"):
        assert client.post(f"{path}{name}/", {"text": "x"}).status_code == 403
    assert IncidentEntry.objects.filter(incident=incident).count() == 1


def test_the_chosen_incidents_are_acknowledged(admin_client: Client) -> None:
    made = [make_incident(make_target(f"t{n}", "down")) for n in range(3)]
    chosen = {"action": "acknowledge_chosen", "index": "0"}
    admin_client.post(
        "/admin/healthmon/incident/", {**chosen, "_selected_action": [one.pk for one in made[:2]]}
    )
    assert Incident.objects.filter(acknowledged_at__isnull=False).count() == 2
    assert IncidentEntry.objects.filter(kind="acknowledged").count() == 2


def test_the_panel_counts_and_names_the_worst(admin_client: Client) -> None:
    living_checker()
    for number in range(12):
        make_target(f"t{number}", "down" if number == 7 else "degraded")
    body = admin_client.get("/admin/").content.decode()
    panel = body[body.index('id="panel-health"') :]
    assert panel.index(">t7<") < panel.index(">t0<" if ">t0<" in panel else ">t11<")
    assert panel.count('class="why"') == 10
    assert "64 of 64 slots" in panel


def titles() -> list[str]:
    return [problem.title for problem in problems.found()]


def test_nothing_watched_is_no_problem() -> None:
    assert titles() == []


def test_no_checker_alive_is_a_problem_with_a_remedy() -> None:
    make_target("shop", "up")
    (problem,) = problems.found()
    assert problem.severity == "error"
    assert "run_checker" in problem.remedy
    living_checker()
    assert titles() == []


def test_targets_down_are_a_problem_with_their_notes() -> None:
    living_checker()
    make_target("shop", "down", notes="Restart it.")
    (problem,) = problems.found()
    assert problem.title == "shop is down"
    assert problem.remedy == "Restart it."
    make_target("bank", "down")
    assert titles() == ["2 targets are down"]


def test_a_target_that_cannot_be_probed_is_a_problem() -> None:
    living_checker()
    make_target("odd", options={"nonsense": 1})
    (problem,) = problems.found()
    assert problem.title == "1 target cannot be probed as configured"
    assert "nonsense" in problem.cause
    Target.objects.update(paused=True)
    assert titles() == []


def test_a_checker_that_can_ask_nobody_of_its_network_is_a_hint() -> None:
    living_checker()
    make_target("shop", "up")
    now = timezone.now()
    process = Process.objects.create(
        role="checker", host="here", pid=1, log_id="c", started_at=now, last_seen_at=now,
        stats={"checker": {"beyond": 5, "witnesses": 0}},
    )  # fmt: skip
    (problem,) = problems.found()
    assert problem.severity == "info"
    assert "COLLECTOR_NETWORK_WITNESSES" in problem.remedy
    for told in ({"beyond": 4, "witnesses": 0}, {"beyond": 500, "witnesses": 1}, {}, None):
        process.stats = {"checker": told}
        process.save()
        assert titles() == []


def test_uptime_is_never_rounded_up_to_all_of_it() -> None:
    assert uptime_text(1.0) == "100 %"
    assert uptime_text(0.9999999) == "99.999 %"
    assert uptime_text(0.98999) == "98.99 %"
    assert uptime_text(None) == "\N{EN DASH}"
    assert [seconds_text(s) for s in (1.5, 30, 90, 300, 86_400)] == [
        "1.5 s", "30 s", "90 s", "5 min", "1 d",
    ]  # fmt: skip


def test_a_ribbon_tells_by_shape_and_words_what_it_tells_by_colour() -> None:
    today = timezone.now().date()
    days = [
        Day(date=today - timedelta(days=1), status="down", ratio=0.9, down_s=8_640),
        Day(date=today, status="up", ratio=1.0, down_s=0),
    ]
    svg = charts.ribbon(days, label="<shop>")
    assert 'height="100"' in svg
    assert 'height="70"' in svg
    assert "down on 1 of the 2 days" in svg
    assert "&lt;shop&gt;" in svg
