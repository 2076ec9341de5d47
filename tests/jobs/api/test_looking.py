"""Looking at jobs, cancelling and retrying them: what is told, to whom, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from jobs.api import tools
from jobs.ids import first_id_at, new_job_id, submitted_at
from jobs.states import CANCELLED, DEAD, QUEUED, RUNNING, SUCCEEDED
from jobs.store.models import Job
from jobs.store.protocol import Draft, Ended, StepRecord

pytestmark = pytest.mark.django_db

MISSING = "/jobs/01234567-89ab-7def-8123-456789abcdef"


def submit(type, **fields) -> UUID:
    fields.setdefault("payload", {"user_id": 1})
    draft = Draft(type_id=type.pk, **fields)
    tools.the_store().submit([draft])
    return draft.id


def run(type, *, state=SUCCEEDED, **ended) -> None:
    """Claim what is queued, and end it."""
    store = tools.the_store()
    store.join("r", host="h", pid=1)
    for job in store.claim("r", "w", 100, types=[type.pk]):
        store.write([Ended(id=job.id, claim=job.claim, state=state, worker="w-1", **ended)])


def listed(api, query: str = "", **headers) -> list[str]:
    answer = api("GET", f"/jobs{query}", **headers)
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def ids(*found: UUID) -> list[str]:
    return [str(id) for id in found]


# --- one ----------------------------------------------------------------------------------------


def test_a_job_is_told_whole(api, verify):
    id = submit(verify, correlation_id="c-1", service="shop", webhook_url="https://e.org/?key=s")
    now = datetime.now(UTC)
    step = StepRecord(
        name="face",
        state="succeeded",
        attempts=2,
        started_at=now,
        finished_at=now,
        duration_ms=12.5,
        status_code=200,
        result={"score": 0.9},
    )
    run(verify, result={"steps": {"face": {"score": 0.9}}}, ran_s=0.5, steps=[step])
    answer = api("GET", f"/jobs/{id}")
    assert answer["X-Correlation-ID"] == "c-1"
    body = answer.json()
    assert (body["id"], body["type"], body["status"]) == (str(id), "verify", SUCCEEDED)
    assert (body["attempts"], body["error"], body["reason"]) == (1, "", "")
    assert body["result"] == {"steps": {"face": {"score": 0.9}}}
    assert (body["correlation_id"], body["service"]) == ("c-1", "shop")
    assert body["payload"] == {"user_id": 1}
    (told,) = body["steps"]
    assert (told["name"], told["status"], told["attempts"]) == ("face", "succeeded", 2)
    assert (told["duration_ms"], told["status_code"]) == (12.5, 200)
    assert told["result"] == {"score": 0.9}
    states = [event["status"] for event in body["events"]]
    assert (states[0], states[-1]) == (QUEUED, SUCCEEDED)
    assert body["events_omitted"] is False
    assert set(body["timings"]) == {"waited_s", "ran_s", "total_s"}
    assert all(value >= 0 for value in body["timings"].values())
    assert body["submitted_at"] <= body["finished_at"]
    # Where it goes may hold a key.
    assert body["webhook"] is True
    assert b"e.org" not in api("GET", f"/jobs/{id}").content


def test_a_dead_job_says_why(api, verify):
    id = submit(verify)
    run(verify, state=DEAD, reason="permanent", error="face: 404")
    body = api("GET", f"/jobs/{id}").json()
    assert (body["status"], body["reason"], body["error"]) == (DEAD, "permanent", "face: 404")


@pytest.mark.parametrize("path", [MISSING, "/jobs/5", "/jobs/x/cancel", f"{MISSING}/other"])
def test_what_is_not_there_is_a_404(api, path):
    for method in ("GET",) if "cancel" not in path else ("POST",):
        answer = api(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_that_a_job_is_not_there_is_said_of_the_job(api):
    for method, path in (("GET", MISSING), ("POST", f"{MISSING}/cancel")):
        detail = api(method, path).json()["detail"]
        assert f"There is no job {MISSING.removeprefix('/jobs/')}" in detail
        assert "forgotten" in detail


def test_only_ones_own_tenants_jobs_are_seen_and_touched(api_with, verify):
    ours, theirs = submit(verify, tenant="ours"), submit(verify, tenant="theirs")
    key = api_with("read", "jobs", tenant="ours")
    assert listed(key) == ids(ours)
    assert listed(key, "?tenant=theirs") == []
    assert key("GET", f"/jobs/{ours}").status_code == 200
    assert key("GET", f"/jobs/{theirs}").status_code == 404
    for verb in ("cancel", "retry"):
        assert key("POST", f"/jobs/{theirs}/{verb}").status_code == 404
    assert Job.objects.get(pk=theirs).state == QUEUED
    any_ = api_with("read", "jobs", any_tenant=True)
    assert listed(any_) == ids(theirs, ours)
    assert listed(any_, "?tenant=theirs") == ids(theirs)
    assert any_("GET", f"/jobs/{theirs}").status_code == 200


def test_looking_and_changing_take_their_scopes(api_with, verify):
    id = submit(verify)
    reading, changing = api_with("read"), api_with("jobs")
    assert reading("GET", f"/jobs/{id}").status_code == 200
    assert changing("GET", f"/jobs/{id}").status_code == 200
    assert changing("GET", "/jobs").status_code == 200
    neither = api_with("logs")("GET", f"/jobs/{id}")
    assert (neither.status_code, neither.json()["code"]) == (403, "missing_scope")
    assert "'read' or 'jobs'" in neither.json()["detail"]
    assert reading("POST", f"/jobs/{id}/cancel").status_code == 403
    assert changing("POST", f"/jobs/{id}/cancel").status_code == 200


# --- lists --------------------------------------------------------------------------------------


def test_a_list_is_filtered(api, verify, make_type):
    other = make_type("other", payload_schema={})
    a = submit(verify, correlation_id="c", service="shop")
    b = submit(other, service="shop")
    c = submit(verify, run_at=datetime.now(UTC) + timedelta(hours=1))
    assert listed(api) == ids(c, b, a)
    assert listed(api, "?type=verify") == ids(c, a)
    assert listed(api, "?correlation_id=c") == ids(a)
    assert listed(api, "?service=shop") == ids(b, a)
    assert listed(api, "?service=shop&type=other") == ids(b)
    assert listed(api, "?status=scheduled") == ids(c)
    assert listed(api, "?status=scheduled,queued") == ids(c, b, a)
    assert listed(api, "?status=dead,succeeded") == []
    assert listed(api, "?status=queued,scheduled&limit=2") == ids(c, b)


def test_a_list_does_not_carry_what_may_be_large(api, verify):
    submit(verify)
    (row,) = api("GET", "/jobs").json()["results"]
    assert not {"payload", "result", "steps", "events"} & row.keys()


@pytest.mark.parametrize("query", ["", "status=queued,scheduled", "type=verify"])
def test_pages_follow_one_another_without_a_gap(api, verify, query):
    made = [submit(verify) for _ in range(5)]
    seen: list[str] = []
    address = f"/jobs?limit=2&{query}"
    while address:
        body = api("GET", address).json()
        seen += [row["id"] for row in body["results"]]
        address = body["next"] and f"/jobs?{urlsplit(body['next']).query}"
    assert seen == ids(*reversed(made))


def test_after_goes_forward_from_the_oldest(api, verify):
    made = [submit(verify) for _ in range(4)]
    body = api("GET", f"/jobs?after={made[0]}&limit=2").json()
    assert [row["id"] for row in body["results"]] == ids(*made[1:3])
    rest = api("GET", f"/jobs?{urlsplit(body['next']).query}").json()
    assert ([row["id"] for row in rest["results"]], rest["next"]) == (ids(made[3]), None)


def test_since_and_until_are_times_of_submission(api, verify):
    made = [submit(verify, id=at_(hour)) for hour in (1, 2, 3)]
    first, second, third = (submitted_at(id).isoformat().replace("+", "%2B") for id in made)
    assert listed(api, f"?since={second}") == ids(made[2], made[1])
    assert listed(api, f"?until={second}") == ids(made[0])
    assert listed(api, f"?since={first}&until={third}") == ids(made[1], made[0])


def at_(hour: int) -> UUID:
    made = first_id_at(datetime(2026, 1, 1, hour, tzinfo=UTC)).int
    return UUID(int=made | 0x7 << 76 | 0b10 << 62 | 5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"), ("status=", "status"), ("type=nope", "type"),
        ("before=5", "before"), ("after=x", "after"), ("since=yesterday", "since"),
        ("limit=0", "limit"), ("limit=501", "limit"), ("state=dead", "state"),
        (f"before={uuid4()}&after={uuid4()}", "after"),
    ],
    ids=["status", "no-status", "type", "before", "after", "since", "zero", "many", "unknown",
         "both"],
)  # fmt: skip
def test_a_filter_that_cannot_be_meant_is_refused(api, verify, query, field):
    answer = api("GET", f"/jobs?{query}")
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == (f"/{field}", "invalid")
    assert error["detail"]


def test_the_ids_of_a_time_bound_the_jobs_of_that_time():
    id = new_job_id()
    at = submitted_at(id)
    assert first_id_at(at) <= id < first_id_at(at + timedelta(milliseconds=1))
    assert first_id_at(datetime(1960, 1, 1, tzinfo=UTC)).int == 0


# --- cancelling and trying again ----------------------------------------------------------------


def test_what_waits_is_cancelled_at_once_and_harmlessly_again(api, verify):
    for id in (submit(verify), submit(verify, run_at=datetime.now(UTC) + timedelta(hours=1))):
        first, again = (api("POST", f"/jobs/{id}/cancel") for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json() == {
            "id": str(id), "status": CANCELLED, "changed": True, "cancel_asked": False,
        }  # fmt: skip
        assert again.json()["changed"] is False
        assert Job.objects.get(pk=id).state == CANCELLED


def test_what_runs_is_told_and_ends_later(api, verify):
    id = submit(verify)
    store = tools.the_store()
    store.join("r", host="h", pid=1)
    (claimed,) = store.claim("r", "w", 1, types=[verify.pk])
    for _ in range(2):
        answer = api("POST", f"/jobs/{id}/cancel")
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["cancel_asked"]) == (RUNNING, True)
    assert store.cancels("r") == [(id, claimed.claim)]


def test_what_has_ended_is_not_cancelled(api, verify):
    id = submit(verify)
    run(verify)
    answer = api("POST", f"/jobs/{id}/cancel")
    assert answer.status_code == 409
    body = answer.json()
    assert (body["code"], body["job_status"]) == ("conflict", SUCCEEDED)


def test_what_is_dead_is_tried_again_and_told_by_whom(api_with, verify):
    id = submit(verify)
    run(verify, state=DEAD, reason="attempts")
    key = api_with("jobs", "read")
    answer = key("POST", f"/jobs/{id}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, QUEUED)
    body = key("GET", f"/jobs/{id}").json()
    assert (body["status"], body["attempts"], body["retries"]) == (QUEUED, 0, 1)
    assert "the API key" in body["events"][-1]["text"]
    again = key("POST", f"/jobs/{id}/retry")
    assert (again.status_code, again.json()["job_status"]) == (409, QUEUED)


def test_what_waits_for_its_first_time_is_run_now(api, verify):
    id = submit(verify, run_at=datetime.now(UTC) + timedelta(hours=1))
    answer = api("POST", f"/jobs/{id}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, QUEUED)


def test_trying_again_needs_room_too(api, verify, settings):
    from dataclasses import replace

    id = submit(verify)
    run(verify, state=DEAD, reason="attempts")
    submit(verify)
    jobs = replace(settings.COLLECTOR.jobs, capacity=1, resume=1.0)
    settings.COLLECTOR = replace(settings.COLLECTOR, jobs=jobs)
    answer = api("POST", f"/jobs/{id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (429, "saturated")
    assert Job.objects.get(pk=id).state == DEAD
