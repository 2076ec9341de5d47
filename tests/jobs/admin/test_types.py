"""Types with their steps, downstream services, schedules, and submitting by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from jobs.admin.submitting import sample
from jobs.models import DownstreamService, Job, JobMinute, JobSchedule, JobType, TypeStep
from jobs.states import SUCCEEDED
from jobs.types import catalogue
from sinks.secrets import decrypt
from tests.jobs.admin.cast import (
    EVIL,
    living_runner,
    make_downstream,
    make_job,
    make_type,
    told_of,
)

pytestmark = pytest.mark.django_db

TYPES, SERVICES, SCHEDULES = (
    "/admin/jobs/jobtype/", "/admin/jobs/downstreamservice/", "/admin/jobs/jobschedule/",
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"user_id": {"type": "integer"}},
    "required": ["user_id"],
    "additionalProperties": False,
}
SECRET = "s3cret-of-the-partner"


def type_form(steps: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    sent: dict[str, Any] = {
        "name": "order", "enabled": "on", "payload_schema": json.dumps(SCHEMA),
        "aggregation": "all", "default_priority": "5", "max_attempts": "8",
        "backoff_base_s": "1", "backoff_cap_s": "60", "deadline_s": "3600", "job_webhooks": "on",
        "steps-TOTAL_FORMS": str(len(steps)), "steps-INITIAL_FORMS": "0", **fields,
    }  # fmt: skip
    for number, step in enumerate(steps):
        values = {
            "name": f"step-{number}", "stage": "1", "kind": "call", "method": "POST",
            "path": "/users/{payload.user_id}", **step,
        }  # fmt: skip
        sent.update({f"steps-{number}-{name}": value for name, value in values.items()})
    return sent


def errors_of(client: Client, path: str, sent: dict[str, Any]) -> str:
    answer = client.post(path, sent)
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "errorlist" in page
    return page


def test_a_type_is_made_with_its_steps(admin_client: Client) -> None:
    service = make_downstream("payments")
    steps: list[dict[str, Any]] = [
        {"name": "charge", "downstream": service.pk, "headers": '{"X-User": "{payload.user_id}"}'},
        {"name": "mail", "stage": "2", "downstream": service.pk, "path": "/mail",
         "body": '{"charge": "{steps.charge.result.id}"}'},
        {"name": "check", "kind": "handler", "handler": "jobs.examples.ekyc.face"},
    ]  # fmt: skip

    answer = admin_client.post(f"{TYPES}add/", type_form(steps), follow=True)

    row = JobType.objects.get(name="order")
    assert row.payload_schema == SCHEMA
    assert {one.name: one.body for one in row.steps.all()} == {
        "charge": None, "mail": {"charge": "{steps.charge.result.id}"}, "check": None,
    }  # fmt: skip
    assert row.steps.get(name="check").path == ""
    assert f"{TYPES}{row.pk}/submit/" in answer.content.decode()


@pytest.mark.parametrize(
    ("fields", "step", "said"),
    [
        ({"payload_schema": "{"}, {}, "This is no JSON"),
        ({"payload_schema": "[]"}, {}, "must be a JSON object"),
        ({"payload_schema": '{"type": "colour"}'}, {}, "colour"),
        ({"payload_schema": '{"$ref": "http://example.test/s.json"}'}, {}, "nothing is fetched"),
        ({"payload_schema": "[" * 80 + "]" * 80}, {}, "nested more than"),
        ({"backoff_cap_s": "0.5"}, {}, "shorter than the first"),
        ({"aggregation": "quorum"}, {}, "how many steps must succeed"),
        ({"aggregation": "quorum", "quorum": "3"}, {}, "Of 1 steps, 3 cannot succeed"),
        ({"burst": "3"}, {}, "needs a rate"),
        ({"webhook_url": "ftp://x"}, {}, "must begin with http"),
        ({}, {"path": "/users/{payload.name}"}, "has no name"),
        ({}, {"path": "/users/{payload.user_id"}, "lone {"),
        ({}, {"path": "/users/{steps.later.result.x}"}, "is no step of an earlier"),
        ({}, {"path": "/a/../b"}, "or .."),
        ({}, {"headers": '{"X": 5}'}, "must be text"),
        ({}, {"headers": '{"X": "a\\nb"}'}, "line break"),
        ({}, {"headers": '{"Host": "x"}'}, "cannot be set"),
        ({}, {"body": '"\\u0000"'}, "U+0000"),
        ({}, {"expected_status": "fine"}, "not a status"),
        ({}, {"downstream": ""}, "Choose the downstream service"),
        ({}, {"kind": "handler", "handler": "os.system"}, "is not among"),
        ({}, {"kind": "handler", "handler": "jobs.examples.ekyc.nothing"}, "has no nothing"),
        ({}, {"kind": "handler"}, "Name the function"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_type_is_said_at_its_place(
    admin_client: Client, fields: dict[str, Any], step: dict[str, Any], said: str
) -> None:
    service = make_downstream("payments")

    page = errors_of(
        admin_client, f"{TYPES}add/", type_form([{"downstream": service.pk, **step}], **fields)
    )

    assert said in page.replace("&quot;", '"').replace("&#x27;", "'")
    assert not JobType.objects.filter(name="order").exists()


def test_two_steps_of_one_name(admin_client: Client) -> None:
    service = make_downstream()
    steps: list[dict[str, Any]] = [{"name": "same", "downstream": service.pk}] * 2

    errors_of(admin_client, f"{TYPES}add/", type_form(steps))

    assert not TypeStep.objects.filter(name="same").exists()


def test_a_webhook_secret_goes_in_and_never_comes_out(admin_client: Client) -> None:
    sent = type_form([], new_webhook_secret=SECRET, webhook_url="https://example.test/hook")
    admin_client.post(f"{TYPES}add/", sent)
    row = JobType.objects.get(name="order")
    assert SECRET not in row.webhook_secret
    assert decrypt(row.webhook_secret, option="x") == SECRET
    page = f"{TYPES}{row.pk}/change/"

    shown = admin_client.get(page).content.decode()
    refused = admin_client.post(page, {**sent, "deadline_s": "x"}).content.decode()
    admin_client.post(page, {**sent, "new_webhook_secret": ""})  # left empty, it stays

    assert SECRET not in shown + refused
    assert row.webhook_secret not in shown + refused
    row.refresh_from_db()
    assert decrypt(row.webhook_secret, option="x") == SECRET
    admin_client.post(page, {**sent, "new_webhook_secret": "", "clear_webhook_secret": "on"})
    row.refresh_from_db()
    assert row.webhook_secret == ""


def test_a_type_with_jobs_is_disabled_rather_than_deleted(admin_client: Client) -> None:
    row = make_type("order")
    job = make_job(row, SUCCEEDED)
    delete = f"{TYPES}{row.pk}/delete/"

    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    assert "cannot be deleted" in admin_client.get(f"{TYPES}{row.pk}/change/").content.decode()
    admin_client.post(TYPES, {"action": "disable", "_selected_action": [str(row.pk)]})
    row.refresh_from_db()
    assert not row.enabled
    Job.objects.filter(pk=job.pk).delete()
    now = datetime.now(UTC)
    JobMinute.objects.bulk_create(
        JobMinute(type=row, at=now - timedelta(minutes=back)) for back in range(60)
    )
    page = admin_client.get(delete).content.decode()
    assert "Step charge" in page
    assert page.count("<li>") < 60  # not each minute of its figures
    admin_client.post(delete, {"post": "yes"})
    assert not JobType.objects.filter(pk=row.pk).exists()


def test_secret_headers_go_in_and_never_come_out(admin_client: Client) -> None:
    sent: dict[str, Any] = {
        "name": "payments", "base_url": "https://payments.test/v1", "timeout_s": "10",
        "expected_status": "200-299", "max_response_bytes": "1000", "breaker_rule": "ratio",
        "breaker_ratio": "0.6", "breaker_min_calls": "3", "breaker_window_s": "60",
        "breaker_consecutive": "5", "breaker_open_s": "10", "breaker_probes": "1",
        "new_secret_headers": f"Authorization: Bearer {SECRET}\nX-Key: env:PARTNER_KEY",
    }  # fmt: skip
    admin_client.post(f"{SERVICES}add/", sent)
    row = DownstreamService.objects.get()
    assert decrypt(row.secret_headers["Authorization"], option="x") == f"Bearer {SECRET}"
    assert row.secret_headers["X-Key"] == "env:PARTNER_KEY"
    page = f"{SERVICES}{row.pk}/change/"

    shown = admin_client.get(page).content.decode()
    refused = admin_client.post(page, {**sent, "timeout_s": "x"}).content.decode()

    assert SECRET not in shown + refused
    assert row.secret_headers["Authorization"] not in shown + refused
    assert "Authorization (set)" in shown
    assert "X-Key (env:PARTNER_KEY)" in shown
    admin_client.post(
        page,
        {**sent, "new_secret_headers": "x-key: other", "remove_secret_headers": ["Authorization"]},
    )
    row.refresh_from_db()
    assert list(row.secret_headers) == ["x-key"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_url": "file:///etc/passwd"}, "must begin with http"),
        ({"base_url": "http://user:pw@host"}, "secret header"),
        ({"headers": '{"X": "a\\nb"}'}, "line break"),
        ({"new_secret_headers": f"no colon {SECRET}"}, "Line 1 is not of the form"),
        ({"new_secret_headers": "Bad Name: x"}, "is not a header"),
        ({"headers": '{"X-Key": "a"}', "new_secret_headers": "x-key: b"}, "among the other"),
        ({"expected_status": "all"}, "not a status"),
        ({"burst": "3"}, "needs a rate"),
    ],
)
def test_what_is_wrong_with_a_service_is_said(
    admin_client: Client, fields: dict[str, Any], said: str
) -> None:
    row = make_downstream("payments")
    sent = {
        "name": "payments", "base_url": "https://payments.test/v1", "timeout_s": "10",
        "expected_status": "200-299", "max_response_bytes": "1000", "breaker_rule": "ratio",
        "breaker_ratio": "0.6", "breaker_min_calls": "3", "breaker_window_s": "60",
        "breaker_consecutive": "5", "breaker_open_s": "10", "breaker_probes": "1", **fields,
    }  # fmt: skip

    page = errors_of(admin_client, f"{SERVICES}{row.pk}/change/", sent)

    assert said in page
    assert SECRET not in page


def test_a_service_tells_its_breaker_and_who_calls_it(admin_client: Client) -> None:
    row = make_type("order")
    service = row.steps.first().downstream  # type: ignore[union-attr]
    assert service is not None
    living_runner(downstreams=[told_of(service.name, "open", cause=f"503 {EVIL}", retry_in_s=7)])

    page = admin_client.get(f"{SERVICES}{service.pk}/change/").content.decode()
    listed = admin_client.get(SERVICES).content.decode()

    assert "tried again in 7 s" in page
    assert "charge (POST /charge)" in page
    assert EVIL not in page
    assert "open" in listed


def test_a_service_that_steps_call_is_not_deleted(admin_client: Client) -> None:
    service = make_type("order").steps.first().downstream  # type: ignore[union-attr]
    assert service is not None

    admin_client.post(f"{SERVICES}{service.pk}/delete/", {"post": "yes"})

    assert DownstreamService.objects.filter(pk=service.pk).exists()


# --- schedules ----------------------------------------------------------------------------------


def schedule_form(row: JobType, **fields: Any) -> dict[str, Any]:
    return {
        "name": "nightly", "type": row.pk, "cron": "30 2 * * *", "timezone": "Europe/Vienna",
        "payload": '{"user_id": 5}', "tenant": "default", "enabled": "on", "missed": "once",
        "overlap": "on", **fields,
    }  # fmt: skip


def test_a_schedule_shows_its_next_five_times(admin_client: Client) -> None:
    row = make_type("books", payload_schema=SCHEMA)

    admin_client.post(f"{SCHEDULES}add/", schedule_form(row))

    made = JobSchedule.objects.get(name="nightly")
    page = admin_client.get(f"{SCHEDULES}{made.pk}/change/").content.decode()
    assert page.count("02:30 CE") == 5
    assert "nightly" in admin_client.get(SCHEDULES).content.decode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cron": "every day"}, "five fields"),
        ({"cron": "0 0 30 2 *"}, "0 0 30 2 *"),
        ({"timezone": "Europe/Wien"}, "no time zone"),
        ({"payload": "{}"}, "/user_id: is missing"),
        ({"payload": "["}, "no JSON"),
        ({"priority": "12"}, "less than or equal to 9"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(
    admin_client: Client, fields: dict[str, Any], said: str
) -> None:
    row = make_type("books", payload_schema=SCHEMA)

    assert said in errors_of(admin_client, f"{SCHEDULES}add/", schedule_form(row, **fields))


# --- submitting ---------------------------------------------------------------------------------


def test_a_schedule_is_tried_at_once(
    admin_client: Client, client_who_may: Callable[..., Client]
) -> None:
    row = make_type("books", payload_schema=SCHEMA)
    catalogue.refresh()
    made = JobSchedule.objects.create(
        name="nightly", type=row, cron="@yearly", payload={"user_id": 5}, priority=8
    )
    page = f"{SCHEDULES}{made.pk}/change/"
    assert "Submit one now" in admin_client.get(page).content.decode()

    answer = admin_client.post(f"{SCHEDULES}{made.pk}/now/", follow=True)

    job = Job.objects.get()
    assert str(job.pk) in answer.content.decode()
    assert (job.payload, job.priority, job.schedule) == ({"user_id": 5}, 8, "nightly")
    assert job.submitted_by == "admin, for schedule nightly"
    assert JobSchedule.objects.values_list("next_at", "last_at", "last_job").get() == (None,) * 3
    action = {"action": "submit_now", "_selected_action": [made.pk]}
    admin_client.post(SCHEDULES, action)
    assert Job.objects.count() == 2
    # One that does not fit any more is not submitted, and says why.
    JobSchedule.objects.update(payload={})
    answer = admin_client.post(f"{SCHEDULES}{made.pk}/now/", follow=True)
    assert "nothing was submitted: its payload does not fit" in answer.content.decode()
    other = client_who_may("change_jobschedule", "view_jobschedule")
    assert other.post(f"{SCHEDULES}{made.pk}/now/").status_code == 403
    assert "Submit one now" not in other.get(page).content.decode()
    assert Job.objects.count() == 2


def test_a_type_is_tried_from_its_page(admin_client: Client) -> None:
    row = make_type("order", payload_schema=SCHEMA, default_priority=7)
    page = f"{TYPES}{row.pk}/submit/"
    shown = admin_client.get(page).content.decode()
    assert "&quot;user_id&quot;: 1" in shown

    answer = admin_client.post(
        page, {"payload": '{"user_id": 456}', "correlation_id": "c-1", "priority": "7"}
    )

    job = Job.objects.get()
    assert answer.headers["Location"] == f"/admin/jobs/job/{job.pk}/change/"
    assert (job.payload, job.correlation_id, job.priority, job.submitted_by) == (
        {"user_id": 456}, "c-1", 7, "admin",
    )  # fmt: skip
    assert job.deadline_at is not None


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ('{"user_id": "x"}', "/user_id"),
        ("{", "no JSON"),
        ("[" * 60 + "]" * 60, "nested more than"),
        ('{"user_id": 1, "x": "' + "a" * 300_000 + '"}', "at most 262,144"),
    ],
    ids=["schema", "broken", "deep", "large"],
)
def test_a_payload_that_does_not_fit_is_refused(
    admin_client: Client, payload: str, said: str
) -> None:
    row = make_type("order", payload_schema=SCHEMA)

    page = admin_client.post(
        f"{TYPES}{row.pk}/submit/", {"payload": payload, "priority": "5"}
    ).content.decode()

    assert said in page
    assert not Job.objects.exists()


def test_a_disabled_type_takes_no_job_and_submitting_needs_the_permission(
    admin_client: Client, client_who_may: Callable[..., Client]
) -> None:
    row = make_type("order", enabled=False)
    page = f"{TYPES}{row.pk}/submit/"

    said = admin_client.post(page, {"payload": "{}", "priority": "5"}).content.decode()
    assert "it takes no jobs" in said
    client = client_who_may("view_jobtype", "view_job")
    assert client.get(page).status_code == 403
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({}, {}),
        (SCHEMA, {"user_id": 1}),
        ({"examples": [{"a": 1}]}, {"a": 1}),
        ({"properties": {"kind": {"enum": ["a", "b"]}, "x": {}}, "required": ["kind"]},
         {"kind": "a"}),
        ({"required": [5], "properties": {}}, {}),
        ([], {}),
    ],
)  # fmt: skip
def test_a_payload_to_begin_with(schema: Any, made: Any) -> None:
    assert sample(schema) == made


def test_what_makes_a_service_unusable_is_said_when_it_is_saved(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = make_downstream("payments")
    sent: dict[str, Any] = {
        "name": "payments", "base_url": "http://169.254.169.254/", "timeout_s": "10",
        "expected_status": "200-299", "max_response_bytes": "1000", "breaker_rule": "ratio",
        "breaker_ratio": "0.6", "breaker_min_calls": "3", "breaker_window_s": "60",
        "breaker_consecutive": "5", "breaker_open_s": "10", "breaker_probes": "1",
        "new_secret_headers": "Authorization: env:NOT_SET_ANYWHERE",
    }  # fmt: skip
    page = f"{SERVICES}{row.pk}/change/"

    said = admin_client.post(page, sent, follow=True).content.decode()

    stays = admin_client.get(page).content.decode()
    assert "NOT_SET_ANYWHERE is not set" in said
    assert "NOT_SET_ANYWHERE is not set" in stays
    assert "metadata" in said
    assert "metadata" in stays
    monkeypatch.setenv("NOT_SET_ANYWHERE", "x")
    sent["base_url"] = "http://127.0.0.1:9/"
    again = admin_client.post(page, sent, follow=True).content.decode()
    assert "is not set" not in again
    assert "metadata" not in again


def test_a_reference_without_quotes_is_told_how_it_is_written(admin_client: Client) -> None:
    service = make_downstream()
    step = {"downstream": service.pk, "body": '{"u": {payload.user_id}}'}

    assert "A reference stands in quotes" in errors_of(
        admin_client, f"{TYPES}add/", type_form([step])
    )


def test_a_type_without_steps_says_so_for_as_long_as_it_has_none(admin_client: Client) -> None:
    said = admin_client.post(f"{TYPES}add/", type_form([]), follow=True).content.decode()
    row = JobType.objects.get(name="order")

    assert "Order has no steps: its jobs do nothing" in said
    assert "no steps: its jobs do nothing" in admin_client.get(TYPES).content.decode()
    assert "It has no steps" in admin_client.get(f"{TYPES}{row.pk}/change/").content.decode()


def test_what_keeps_a_service_from_being_deleted_is_named(admin_client: Client) -> None:
    row = make_type("order")
    step = row.steps.first()
    assert step is not None

    page = admin_client.get(f"{SERVICES}{step.downstream_id}/delete/").content.decode()

    assert f'<a href="/admin/jobs/jobtype/{row.pk}/change/">order</a>, step charge' in page


def test_a_job_that_is_gone_leads_to_the_list(admin_client: Client) -> None:
    gone = "019aab00-0000-7000-8000-000000000000"

    answer = admin_client.get(f"/admin/jobs/job/{gone}/change/", follow=True)

    assert answer.redirect_chain[0][0] == "/admin/jobs/job/"
    assert f"There is no job {gone}" in answer.content.decode()
