"""The jobs of a service on the page of its target, for who may see jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from control.ports.jobs import MAX_JOBS, jobs_of
from jobs.api import servicejobs, tools
from jobs.store.protocol import Draft
from tests.healthmon.admin.cast import make_target

pytestmark = pytest.mark.django_db


def submit(type, count: int = 1, **fields) -> None:
    drafts = [Draft(type_id=type.pk, payload={}, **fields) for _ in range(count)]
    tools.the_store().submit(drafts)


def found(service: str, **more):
    now = datetime.now(UTC)
    return jobs_of(service, start=now - timedelta(hours=1), end=now + timedelta(minutes=1), **more)


def test_the_jobs_of_a_service_are_bounded_by_window_and_number(verify):
    submit(verify, 3, service="shop", correlation_id="c")
    submit(verify, service="other")
    submit(verify)
    all_ = found("shop")
    assert [(job.type, job.state, job.correlation_id) for job in all_.jobs] == [
        ("verify", "queued", "c")
    ] * 3
    assert not all_.more
    assert all_.jobs[0].submitted_at >= all_.jobs[-1].submitted_at
    assert all(job.url for job in all_.jobs)
    assert "service=shop" in all_.url
    few = found("shop", limit=2)
    assert (len(few.jobs), few.more) == (2, True)
    assert found("").jobs == ()
    now = datetime.now(UTC)
    before = jobs_of("shop", start=now - timedelta(hours=2), end=now - timedelta(hours=1))
    assert before is not None
    assert before.jobs == ()


def test_never_more_than_a_page_shows(verify):
    submit(verify, MAX_JOBS + 1, service="shop")
    answer = found("shop", limit=10_000)
    assert (len(answer.jobs), answer.more) == (MAX_JOBS, True)


def test_a_database_that_fails_is_told_of_in_the_answer(verify, monkeypatch):
    from django.db import OperationalError

    def away(*_):
        raise OperationalError("away")

    monkeypatch.setattr(servicejobs, "query_deadline", away)
    assert "OperationalError" in found("shop").problem


def test_a_targets_page_shows_them_to_who_may_see_jobs(verify, admin_client, client):
    target = make_target("shop", "up")
    submit(verify, service="shop", correlation_id="<b>c-77</b>")
    page = f"/admin/healthmon/target/{target.pk}/"
    body = admin_client.get(page).content.decode()
    assert "Jobs of shop" in body
    assert "&lt;b&gt;c-77" in body
    user = get_user_model().objects.create_user("ada", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="healthmon"))
    client.force_login(user)
    body = client.get(page).content.decode()
    assert "Jobs of shop" not in body
    assert "c-77" not in body


def test_a_target_whose_service_has_no_jobs_has_no_such_panel(verify, admin_client):
    target = make_target("quiet", "up")
    body = admin_client.get(f"/admin/healthmon/target/{target.pk}/").content.decode()
    assert "Jobs of quiet" not in body
