from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from control.models import ProcessRequest, Tenant
from tests.admin.cast import EVIL, make_process, make_worker_runs, pipeline_stats

pytestmark = pytest.mark.django_db

PROCESSES = "/admin/control/process/"
RUNS = "/admin/control/workerrun/"


def test_dead_processes_stay_in_the_list_with_their_reason(admin_client: Client) -> None:
    now = timezone.now()
    make_process(pid=1)
    make_process(pid=2, last_seen_at=now - timedelta(days=2))
    make_process(
        pid=3,
        last_seen_at=now - timedelta(days=3),
        stopped_at=now - timedelta(days=3),
        exit_reason="SIGTERM, drained",
    )
    html = admin_client.get(PROCESSES).content.decode()
    assert html.count('aria-hidden="true"></span>alive') == 1
    assert "fell silent without saying why" in html
    assert "SIGTERM, drained" in html


def test_the_process_page_shows_workers_with_their_counts(admin_client: Client) -> None:
    process = make_process()
    make_worker_runs(process, count=3)
    ProcessRequest.objects.create(process=process, kind="drain")
    html = admin_client.get(f"{PROCESSES}{process.pk}/change/").content.decode()
    assert "database-2" in html
    assert html.count("340 k") == 3
    assert "still runs" in html
    assert "drain" in html
    assert "balances" in html


def test_the_page_of_a_dead_process_has_its_last_figures(admin_client: Client) -> None:
    process = make_process(last_seen_at=timezone.now() - timedelta(hours=1))
    html = admin_client.get(f"{PROCESSES}{process.pk}/change/").content.decode()
    assert "at the last heartbeat" in html
    assert "killed, out of memory" in html
    assert "41.2 k" in html


def test_names_and_errors_are_inert(admin_client: Client) -> None:
    process = make_process(
        host=EVIL,
        exit_reason=EVIL,
        stats={"pipelines": [pipeline_stats(name=EVIL, last_error=EVIL)]},
    )
    for page in (PROCESSES, f"{PROCESSES}{process.pk}/change/", "/admin/"):
        html = admin_client.get(page).content.decode()
        assert "<script>alert(" not in html
        assert "<img src=x" not in html


def test_worker_history_is_filtered_by_process_and_failures(admin_client: Client) -> None:
    one, two = make_process(pid=1), make_process(pid=2)
    make_worker_runs(one, count=2)
    make_worker_runs(two, count=1)
    assert "3 on this page" in admin_client.get(RUNS).content.decode()
    assert "2 on this page" in admin_client.get(f"{RUNS}?process={one.pk}").content.decode()
    assert "1 on this page" in admin_client.get(f"{RUNS}?failed=on").content.decode()


def test_processes_are_read_only(admin_client: Client) -> None:
    process = make_process()
    for page in (f"{PROCESSES}add/", f"{PROCESSES}{process.pk}/delete/", f"{RUNS}add/"):
        assert admin_client.post(page, {"post": "yes"}).status_code == 403


def test_a_request_and_its_result_can_be_read(admin_client: Client) -> None:
    request = ProcessRequest.objects.create(
        process=make_process(), kind="drain", args={"x": EVIL}, result={"ok": True}
    )
    html = admin_client.get(f"/admin/control/processrequest/{request.pk}/change/").content.decode()
    assert "&lt;script&gt;" in html
    assert "<script>alert(" not in html


def test_a_tenant_keeps_its_slug(admin_client: Client) -> None:
    tenant = Tenant.objects.create(slug="acme")
    admin_client.post(
        f"/admin/control/tenant/{tenant.pk}/change/", {"slug": "other", "name": "Acme"}
    )
    tenant.refresh_from_db()
    assert (tenant.slug, tenant.name) == ("acme", "Acme")
