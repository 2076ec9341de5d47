from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from control.admin.overview import build
from control.admin.problems import found
from control.ports import panels as ports
from tests.admin.cast import (
    EVIL,
    SINK,
    adopted_log,
    ledger_row,
    log_stats,
    make_process,
    make_samples,
    open_breaker,
    pipeline_stats,
)

pytestmark = pytest.mark.django_db


def problems() -> list[ports.Problem]:
    return found(build(timezone.now()))


def test_an_empty_installation_says_what_to_do(admin_client: Client) -> None:
    html = admin_client.get("/admin/").content.decode()
    assert "No Collector process reports" in html
    assert "make run" in html
    assert "curl http://testserver/logs" in html


def test_the_dashboard_tells_of_processes_pipelines_and_ledger(admin_client: Client) -> None:
    process = make_process()
    make_samples(process)
    html = admin_client.get("/admin/").content.decode()
    assert problems() == []
    assert "No records yet" not in html
    assert f"/admin/control/process/{process.pk}/change/" in html
    assert "41.2 k rec" in html
    assert "balances" in html
    assert html.count('<figure class="chart"') == 4


def test_the_fragment_is_the_panels_alone(admin_client: Client) -> None:
    response = admin_client.get("/admin/dashboard/", headers={"HX-Request": "true"})
    html = response.content.decode()
    assert "<html" not in html
    assert 'id="panel-pipelines"' in html
    assert "no-cache" in response["Cache-Control"]


def test_the_fragment_without_a_login_leads_to_the_login_page(client: Client) -> None:
    response = client.get("/admin/dashboard/", headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert response["HX-Redirect"].startswith("/admin/login/")
    assert client.get("/admin/dashboard/").status_code == 302


def test_rates_are_those_of_the_last_samples() -> None:
    now = timezone.now()
    for pid in (1, 2):
        make_samples(make_process(now=now, pid=pid), now=now, accepted=500, stored=400)
    (pipeline,) = build(now).pipelines
    assert pipeline.processes == 2
    assert pipeline.in_rate == pytest.approx(200.0)
    assert pipeline.out_rate == pytest.approx(160.0)
    assert pipeline.held_records == 2 * 41_200
    assert pipeline.capacity_records == 800_000


def test_a_process_that_fell_silent_is_a_problem_and_stays_visible(admin_client: Client) -> None:
    make_process()
    gone = make_process(pid=99, last_seen_at=timezone.now() - timedelta(minutes=5))
    (problem,) = problems()
    assert problem.severity == "error"
    assert "fell silent" in problem.title
    assert "41.2 k records were in flight" in problem.cause
    assert str(gone.pk) in problem.url
    assert str(gone.pk) in admin_client.get("/admin/").content.decode()


def test_a_process_that_stopped_is_no_problem() -> None:
    make_process()
    make_process(stopped_at=timezone.now(), exit_reason="SIGTERM")
    assert problems() == []


def stats(**changes: Any) -> dict[str, Any]:
    return {"pipelines": [pipeline_stats(**changes)]}


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        (
            {"state": "failing", "last_error": "connection refused", "failures": 3},
            "error",
            "cannot store: 3 failed writes",
        ),
        (
            {
                "state": "failing",
                "last_error": "connection refused",
                "failures": 1,
                "required": False,
            },
            "warning",
            "(optional) cannot store",
        ),
        ({"state": "misconfigured", "misconfigured": "no such path"}, "error", "is misconfigured"),
        ({"held_records": 390_000}, "warning", "buffer is 98 % full"),
        ({"held_bytes": 120 * 1024 * 1024}, "warning", "buffer is 94 % full"),
        ({"refusing": True, "held_records": 330_000}, "error", "refuses new records"),
        ({"state": "paused", "paused": True}, "info", "is paused"),
        (
            {"breaker": open_breaker(), "state": "failing", "last_error": "refused"},
            "error",
            "The breaker of database (required) is open: 41.2 k records wait",
        ),
        (
            {"breaker": open_breaker(state="half_open"), "required": False},
            "warning",
            "The breaker of database (optional) is half-open",
        ),
        (
            {"state": "stuck", "hung_workers": ["sink-db-1", "sink-db-2"]},
            "error",
            "database (required) is stuck: 41.2 k records wait",
        ),
        ({"state": "draining"}, "warning", "takes nothing new: its process is draining"),
        ({"hung_workers": ["sink-db-1"]}, "warning", "database has hung workers: 1"),
    ],
)
def test_each_trouble_of_a_pipeline_is_told(
    changes: dict[str, Any], severity: str, words: str
) -> None:
    make_process(stats=stats(**changes))
    (problem,) = problems()
    assert problem.severity == severity
    assert words in problem.title
    assert problem.cause
    assert problem.remedy


def test_an_old_error_of_a_pipeline_that_stores_again_is_no_problem() -> None:
    old = timezone.now().timestamp() - 600
    make_samples(make_process(stats=stats(last_error="refused", last_error_at=old)))
    assert problems() == []


def test_of_two_processes_the_worse_state_is_shown() -> None:
    for pid, state in ((1, "running"), (2, "failing"), (3, "paused")):
        make_process(pid=pid, stats=stats(state=state, last_error="refused"))
    (pipeline,) = build(timezone.now()).pipelines
    assert pipeline.state == "failing"


def test_refusing_is_an_error() -> None:
    make_samples(make_process(), refused=500)
    (problem,) = problems()
    assert "refuses 100 requests/s" in problem.title


def test_an_open_breaker_tells_its_cause_since_when_and_when_it_tries_again() -> None:
    make_process(stats=stats(breaker=open_breaker(), last_error="an older one"))
    (problem,) = problems()
    assert problem.cause == ("connection refused. It opened 1 min ago. The next try is in 12 s.")
    assert "Nothing is lost" in problem.remedy
    assert problem.url == f"/admin/sinks/sinkconfig/{SINK}/change/"


def test_of_two_breakers_the_open_one_is_shown_with_colour_and_word(admin_client: Client) -> None:
    for pid, breaker in ((1, open_breaker()), (2, {"state": "closed", "trips": 1})):
        make_process(pid=pid, stats=stats(breaker=breaker))
    (pipeline,) = build(timezone.now()).pipelines
    assert (pipeline.breaker, pipeline.breaker_trips) == ("open", 4)
    html = admin_client.get("/admin/").content.decode()
    assert 'class="dot dot-bad" aria-hidden="true"></span>breaker open</small><small>since' in html


ALARM = {"kind": "imbalance", "sink": "database", "tenant": "default", "records": 7}


def test_an_imbalance_is_an_error_and_opposite_ones_do_not_cancel(admin_client: Client) -> None:
    since = timezone.now().timestamp() - 30
    alarms = [
        {**ALARM, "since": since, "log_id": "old"},
        {**ALARM, "tenant": "b", "records": -7, "since": since, "log_id": "a1b2c3"},
    ]
    rows = [
        ledger_row(sink="database", imbalance=7),
        ledger_row(sink="database", tenant="b", imbalance=-7),
    ]
    make_process(ledger=rows, stats={**stats(), "alarms": alarms})
    (problem,) = problems()
    assert problem.severity == "error"
    assert problem.title == "The ledger of database does not balance: 14 records"
    assert "Tenant default: +7 records since" in problem.cause
    assert "server ops-1:4711 (log old)" in problem.cause
    assert "Tenant b: -7 records" in problem.cause
    assert "wal verify" in problem.remedy
    assert problem.url == f"/admin/sinks/sinkconfig/{SINK}/change/"
    html = admin_client.get("/admin/").content.decode()
    assert "off by 14" in html
    assert html.count("off by 7") == 2


def test_an_imbalance_of_a_moment_is_shown_but_no_problem_yet(admin_client: Client) -> None:
    make_process(ledger=[ledger_row(imbalance=7)], stats={**stats(), "alarms": []})
    assert problems() == []
    assert "off by 7" in admin_client.get("/admin/").content.decode()


def test_the_imbalance_of_a_process_that_ended_stays_a_problem(admin_client: Client) -> None:
    make_process()
    make_process(
        pid=99,
        log_id="gone",
        stopped_at=timezone.now(),
        ledger=[ledger_row(sink="database", imbalance=5, tenant="acme")],
        stats={**stats(), "alarms": []},
    )
    (problem,) = problems()
    assert "does not balance: 5 records" in problem.title
    assert "Tenant acme: +5 records, in server ops-1:99 (log gone)" in problem.cause
    html = admin_client.get("/admin/").content.decode()
    assert "as of their last heartbeat (1)" in html
    assert "off by 5" in html


def test_the_ledger_is_shown_by_tenant_those_out_of_balance_first() -> None:
    rows = [ledger_row(tenant=f"t{n}", accepted=n, dropped={"corrupt": 2}) for n in range(30)]
    rows[3]["imbalance"] = 1
    make_process(ledger=rows)
    (view,) = build(timezone.now()).ledger
    assert [one.name for one in view.tenants][:3] == ["t3", "t29", "t28"]
    assert len(view.tenants) == 20
    assert view.more_tenants == 10
    assert view.dropped_by == {"corrupt": 60}
    assert view.tenants[1].dropped_by == {"corrupt": 2}


def test_the_ledger_of_an_adopted_log_says_who_goes_on_with_it(admin_client: Client) -> None:
    make_process(stats={**stats(), "log": log_stats(adopted=[adopted_log(log_id="gone")])}, pid=1)
    make_process(pid=99, log_id="gone", last_seen_at=timezone.now() - timedelta(hours=2))
    assert build(timezone.now()).ended_ledgers == []
    html = admin_client.get("/admin/").content.decode()
    assert "Adopted log gone" in html
    assert "delivered by server ops-1:1; its ledger goes on" in html


def test_problems_of_other_rooms_stand_beside_ours(admin_client: Client) -> None:
    make_process()

    def source() -> list[ports.Problem]:
        return [ports.Problem(severity="error", title=EVIL, cause="c", remedy="r")]

    ports.register_problems(source, name="test")
    try:
        html = admin_client.get("/admin/").content.decode()
    finally:
        ports.unregister_problems("test")
    assert "&lt;script&gt;alert(" in html
    assert "<script>alert(" not in html


def test_a_panel_that_fails_takes_no_other_with_it(admin_client: Client) -> None:
    class Broken:
        name, order, title = "broken", 35, "Broken"

        def render(self, request: object) -> str:
            raise RuntimeError("secret detail")

    ports.register_panel(Broken())
    try:
        html = admin_client.get("/admin/").content.decode()
    finally:
        ports.unregister_panel("broken")
    assert "could not be drawn (RuntimeError)" in html
    assert "secret detail" not in html
    assert 'id="panel-processes"' in html


def test_figures_of_another_version_or_of_nonsense_do_not_break_the_page(
    admin_client: Client,
) -> None:
    make_process(
        stats={"pipelines": [{"key": EVIL, "last_error": EVIL, "dropped": 3}, 7]}, ledger=9
    )
    make_process(stats=[], ledger=[{"sink": None, "accepted": "many"}, 4])
    html = admin_client.get("/admin/").content.decode()
    assert "<script>alert(" not in html
    assert "onerror=alert(1)>" not in html


def test_paused_view_does_not_poll(admin_client: Client) -> None:
    assert "hx-get" in admin_client.get("/admin/").content.decode()
    assert "hx-get" not in admin_client.get("/admin/?live=off").content.decode()


def test_the_app_list_is_still_reachable(admin_client: Client) -> None:
    html = admin_client.get("/admin/").content.decode()
    assert 'id="nav-sidebar"' in html
    assert "/admin/control/apikey/" in html
