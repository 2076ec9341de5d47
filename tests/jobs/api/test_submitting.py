"""`POST /jobs`: what is kept of a submission, and why one is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.db import OperationalError

from control.auth.limits import KeyLimits
from control.idempotency.models import IdempotencyKey
from jobs.api import tools
from jobs.ids import submitted_at
from jobs.states import QUEUED, SCHEDULED
from jobs.store.models import Job, JobEvent
from jobs.types import catalogue
from jobs.types.models import DownstreamService, JobType, TypeStep

pytestmark = pytest.mark.django_db

GOOD = {"type": "verify", "payload": {"user_id": 456}}


def refusal(answer, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer["X-Request-ID"]
    assert not Job.objects.exists()
    return body


def errors(answer) -> dict[str, str]:
    body = refusal(answer, 422, "invalid")
    return {one["pointer"]: one["code"] for one in body["errors"]}


def test_a_job_is_taken_and_all_of_it_is_kept(api, verify):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = api(
        "POST",
        "/jobs",
        {**GOOD, "priority": 8, "service": "shop", "webhook_url": "https://example.org/done"},
        X_Correlation_ID="job-123",
        X_Request_ID="r-1",
        traceparent=traceparent,
    )
    assert answer.status_code == 202, answer.content
    body = answer.json()
    id = UUID(body["id"])
    assert id.version == 7
    assert (body["status"], body["type"], body["correlation_id"]) == (QUEUED, "verify", "job-123")
    assert answer["Location"] == body["url"] == f"/jobs/{id}"
    assert answer["X-Correlation-ID"] == "job-123"
    job = Job.objects.get(pk=id)
    assert (job.state, job.type_id, job.tenant) == (QUEUED, verify.pk, "default")
    assert (job.payload, job.priority, job.service) == ({"user_id": 456}, 8, "shop")
    assert (job.correlation_id, job.request_id) == ("job-123", "r-1")
    assert job.webhook_url == "https://example.org/done"
    assert job.traceparent == traceparent
    assert job.deadline_at is not None
    assert job.deadline_at - job.run_at == timedelta(seconds=verify.deadline_s)
    assert [event.state for event in JobEvent.objects.filter(job=job)] == [QUEUED]
    assert datetime.fromisoformat(body["submitted_at"]) == submitted_at(id)


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/vnd.job+json"]
)
def test_what_a_client_calls_its_json_does_not_matter(api, verify, kind):
    assert api("POST", "/jobs", GOOD, Content_Type=kind).status_code == 202


def test_a_correlation_id_is_made_where_none_can_be_taken(api, verify):
    for sent in ({}, {"X_Correlation_ID": "a b"}, {"X_Correlation_ID": "x" * 129}):
        answer = api("POST", "/jobs", GOOD, **sent)
        assert answer["X-Correlation-ID"] == answer["X-Request-ID"]
        assert answer.json()["correlation_id_replaced"] is bool(sent)
        assert Job.objects.get(pk=answer.json()["id"]).correlation_id == answer["X-Request-ID"]


def test_a_job_may_wait_for_its_time_and_have_a_deadline(api, verify):
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    answer = api("POST", "/jobs", {**GOOD, "run_at": at.isoformat(), "deadline": 60})
    assert answer.json()["status"] == SCHEDULED
    job = Job.objects.get()
    assert (job.state, job.run_at, job.deadline_at) == (SCHEDULED, at, at + timedelta(seconds=60))


def test_a_time_that_is_over_means_now(api, verify):
    answer = api("POST", "/jobs", {**GOOD, "run_at": "2020-01-01T00:00:00Z"})
    assert answer.json()["status"] == QUEUED


def test_the_types_own_priority_is_taken_where_none_is_named(api, make_type):
    make_type(default_priority=2)
    api("POST", "/jobs", GOOD)
    assert Job.objects.get().priority == 2


@pytest.mark.parametrize(
    ("more", "pointer", "code"),
    [
        ({"type": "nope"}, "/type", "unknown_type"),
        ({"type": 5}, "/type", "type"),
        ({"type": None}, "/type", "required"),
        ({"payload": {}}, "/payload/user_id", "required"),
        ({"payload": {"user_id": "x"}}, "/payload/user_id", "type"),
        ({"payload": [1]}, "/payload", "type"),
        ({"payload": None}, "/payload", "type"),
        ({"priority": 10}, "/priority", "range"),
        ({"priority": True}, "/priority", "type"),
        ({"priority": "5"}, "/priority", "type"),
        ({"run_at": "tomorrow"}, "/run_at", "time"),
        ({"run_at": True}, "/run_at", "type"),
        ({"run_at": -1}, "/run_at", "range"),
        ({"run_at": 1_700_000_000}, "/run_at", "range"),
        ({"run_at": "8999-01-01T00:00:00Z"}, "/run_at", "range"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "/deadline", "range"),
        ({"deadline": 0}, "/deadline", "range"),
        ({"service": "x" * 201}, "/service", "max_length"),
        ({"service": 5}, "/service", "type"),
        ({"webhook_url": "ftp://example.org"}, "/webhook_url", "url"),
        ({"webhook_url": "http://169.254.169.254/"}, "/webhook_url", "url"),
        ({"webhook_url": "https://u:p@example.org/"}, "/webhook_url", "url"),
        ({"payloads": {}}, "/payloads", "unknown"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown"),
        ({"tenant": "No Tenant"}, "/tenant", "type"),
    ],
)
def test_each_mistake_is_named_by_its_place(api, verify, more, pointer, code):
    assert errors(api("POST", "/jobs", {**GOOD, **more})) == {pointer: code}


def test_all_mistakes_are_named_at_once(api, verify):
    body = {"type": "verify", "payload": {}, "priority": 99, "run_at": "x"}
    assert errors(api("POST", "/jobs", body)) == {
        "/payload/user_id": "required",
        "/priority": "range",
        "/run_at": "time",
    }


def test_neither_an_unknown_field_nor_an_unknown_type_hides_other_mistakes(api, verify):
    body = {"type": "nope", "run_at": "tomorrow", "deadline": "-3", "frob": 1}
    assert errors(api("POST", "/jobs", body)) == {
        "/frob": "unknown",
        "/type": "unknown_type",
        "/run_at": "time",
        "/deadline": "time",
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("verfy", "there is no job type 'verfy'; did you mean verify?"),
        ("nope", "a0, a1, a10, a2, a3, a4, a5, a6, a7, a8 and 3 more; types are made in the admin"),
        (None, "is missing; known are a0"),
    ],
)
def test_an_unknown_type_names_those_that_there_are(api, verify, make_type, name, words):
    for n in range(11):
        make_type(f"a{n}")
    make_type("off", enabled=False)
    (error,) = api("POST", "/jobs", {**GOOD, "type": name}).json()["errors"]
    assert words in error["detail"]


def test_a_type_that_is_disabled_or_broken_takes_nothing(api, make_type):
    make_type(enabled=False)
    assert errors(api("POST", "/jobs", GOOD)) == {"/type": "disabled_type"}
    row = make_type("broken", payload_schema={})
    service = DownstreamService.objects.create(name="d", base_url="http://d", headers=["x"])
    TypeStep.objects.create(type=row, name="s", downstream=service)
    catalogue.refresh()
    answer = api("POST", "/jobs", {"type": "broken"})
    refusal(answer, 503, "type_broken")
    assert int(answer["Retry-After"]) >= 1


def test_a_schema_that_cannot_be_used_is_not_the_clients_fault(api, make_type):
    make_type(payload_schema={"$ref": "https://example.org/schema"})
    refusal(api("POST", "/jobs", GOOD), 503, "type_broken")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[1", b'{"type": NaN}', b"\xff", b'{"type":"verify","payload":"\\u0000"}',
        b'{"type":"verify","payload":{"\\u0000":1}}', b'{"type":"verify","payload":"\\ud800"}',
        b'{"type":"verify","payload":"\\udc00x"}',
        b'{"type":"verify","payload":' + b"[" * 20 + b"]" * 20 + b"}",
        b"[" * 100_000, b'{"type":"verify","payload":' + b"9" * 5_000 + b"}",
    ],
    ids=["empty", "cut", "cut-list", "nan", "not-utf8", "nul", "nul-key", "half", "other-half",
         "deep", "very-deep", "long-number"],
)  # fmt: skip
def test_what_is_no_json_that_can_be_kept_is_refused(api, verify, raw):
    refusal(api("POST", "/jobs", raw), 400, "bad_json")


def test_anything_that_is_no_object_is_named(api, verify):
    assert errors(api("POST", "/jobs", [GOOD])) == {"": "type"}


def test_a_body_is_bounded_before_it_is_read(api, verify):
    limit = settings.COLLECTOR.jobs.max_payload_bytes
    fits = b'{"type":"verify","payload":{"user_id":1,"x":"%b"}}'
    body = fits % (b"x" * (limit - len(fits) + 2))
    assert len(body) == limit
    refusal(api("POST", "/jobs", body + b" "), 413, "too_large")
    assert api("POST", "/jobs", body).status_code == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Encoding": "gzip"}, 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"Idempotency_Key": ""}, 400),
        ({"Idempotency_Key": "a b"}, 400),
        ({"Idempotency_Key": "x" * 256}, 400),
    ],
    ids=["gzip", "multipart", "empty-key", "blank-in-key", "long-key"],
)
def test_what_is_wrong_with_its_headers_is_told(api, verify, headers, status):
    assert api("POST", "/jobs", GOOD, **headers).status_code == status
    assert not Job.objects.exists()


# --- who --------------------------------------------------------------------------------------


def test_it_takes_a_key_with_the_scope(api, api_with, verify):
    submitting = api_with("jobs")
    assert submitting("POST", "/jobs", GOOD).status_code == 202
    assert Job.objects.get().submitted_by.startswith("API key ")
    Job.objects.all().delete()
    refusal(api_with("read", "logs")("POST", "/jobs", GOOD), 403, "missing_scope")
    refusal(api("POST", "/jobs", GOOD), 401, "key_required")


def test_the_keys_tenant_wins(api_with, verify):
    ours = api_with("jobs", tenant="ours")
    assert errors(ours("POST", "/jobs", {**GOOD, "tenant": "theirs"})) == {"/tenant": "tenant"}
    assert ours("POST", "/jobs", {**GOOD, "tenant": "ours"}).status_code == 202
    any_ = api_with("jobs", tenant="ours", any_tenant=True)
    assert any_("POST", "/jobs", {**GOOD, "tenant": "theirs"}).status_code == 202
    assert sorted(Job.objects.values_list("tenant", flat=True)) == ["ours", "theirs"]


def test_a_keys_rate_holds_for_jobs_too(api_with, verify, monkeypatch):
    still = KeyLimits(monotonic=lambda: 0.0)
    monkeypatch.setattr("control.auth.limits._limits", still)
    slow = api_with("jobs", rate_per_s=1, burst=1)
    assert slow("POST", "/jobs", GOOD).status_code == 202
    Job.objects.all().delete()
    answer = slow("POST", "/jobs", GOOD)
    refusal(answer, 429, "rate_limited")
    assert int(answer["Retry-After"]) >= 1


# --- keys -------------------------------------------------------------------------------------


def test_the_same_key_is_one_job_and_one_answer(api, verify):
    first = api("POST", "/jobs", GOOD, Idempotency_Key="k-1", X_Correlation_ID="one")
    again = api("POST", "/jobs", GOOD, Idempotency_Key='"k-1"', X_Correlation_ID="other")
    assert (again.status_code, again.content) == (202, first.content)
    assert again["Idempotency-Replayed"] == "true"
    assert again["Location"] == first["Location"]
    assert again["X-Correlation-ID"] == "one"
    assert first.json()["correlation_id_replaced"] is False
    assert not first.has_header("Idempotency-Replayed")
    assert Job.objects.count() == 1
    assert api("POST", "/jobs", GOOD, Idempotency_Key="k-2").json() != first.json()


def test_a_key_of_another_body_is_refused(api, verify):
    api("POST", "/jobs", GOOD, Idempotency_Key="k-1")
    answer = api("POST", "/jobs", {**GOOD, "priority": 1}, Idempotency_Key="k-1")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert Job.objects.count() == 1


def test_a_key_is_its_tenants(api_with, verify):
    for tenant in ("a", "b"):
        answer = api_with("jobs", tenant=tenant)("POST", "/jobs", GOOD, Idempotency_Key="k")
        assert not answer.has_header("Idempotency-Replayed")
    assert Job.objects.count() == 2


def test_what_was_taken_once_is_answered_again_though_it_would_not_be_taken_now(api, verify):
    first = api("POST", "/jobs", GOOD, Idempotency_Key="k")
    JobType.objects.update(enabled=False)
    catalogue.refresh()
    again = api("POST", "/jobs", GOOD, Idempotency_Key="k")
    assert (again.status_code, again.content) == (202, first.content)
    IdempotencyKey.objects.update(expires_at=datetime.now(UTC))
    assert api("POST", "/jobs", GOOD, Idempotency_Key="k").status_code == 422


# --- room and databases -----------------------------------------------------------------------


def test_no_more_jobs_are_open_than_may_be(api, verify, settings):
    from dataclasses import replace

    jobs = replace(settings.COLLECTOR.jobs, capacity=2, resume=0.5)
    settings.COLLECTOR = replace(settings.COLLECTOR, jobs=jobs)
    assert [api("POST", "/jobs", GOOD).status_code for _ in range(3)] == [202, 202, 429]
    answer = api("POST", "/jobs", GOOD)
    assert answer.json()["code"] == "saturated"
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert Job.objects.count() == 2


def test_jobs_for_later_do_not_keep_others_out(api, verify, settings):
    from dataclasses import replace

    jobs = replace(settings.COLLECTOR.jobs, capacity=4, resume=0.5)
    settings.COLLECTOR = replace(settings.COLLECTOR, jobs=jobs)
    later = {**GOOD, "run_at": 86_400}
    first = api("POST", "/jobs", later, Idempotency_Key="k")
    assert api("POST", "/jobs", later).status_code == 202
    refused = api("POST", "/jobs", later)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) >= 30
    assert api("POST", "/jobs", later, Idempotency_Key="k").content == first.content
    # As another process reads it.
    tools.reset()
    assert api("POST", "/jobs", later).status_code == 429
    assert [api("POST", "/jobs", GOOD).status_code for _ in range(5)] == [202] * 4 + [429]
    tools.reset()
    detail = api("POST", "/jobs", GOOD).json()["detail"]
    assert "4 jobs have not ended, besides 2 for later" in detail
    assert "no runner lives" in detail


def test_a_database_that_is_away_is_told_of(api, verify, monkeypatch):
    class Away:
        def counts(self):
            return {}

        def submit(self, drafts):
            raise OperationalError("connection refused: Connection refused")

    monkeypatch.setattr(tools, "the_store", Away)
    answer = api("POST", "/jobs", GOOD)
    body = refusal(answer, 503, "database_away")
    assert "nothing listens" in body["detail"]
    assert answer["Retry-After"]


def test_every_answer_has_the_ids_it_was_asked_with(api, verify):
    answer = api("POST", "/jobs", b"{", X_Correlation_ID="c", X_Request_ID="r")
    assert (answer["X-Correlation-ID"], answer["X-Request-ID"]) == ("c", "r")
