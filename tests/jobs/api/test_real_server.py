"""The first job of a fresh installation, sent as a newcomer sends it, by the real server."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.servers.collector import CollectorServer

pytestmark = pytest.mark.server

BODY = '{"type": "ekyc-verification", "payload": {"user_id": 456}}'


def test_the_example_job_is_taken_run_and_told(collector_server: Callable[..., CollectorServer]):
    server = collector_server(
        environ={"COLLECTOR_JOBS": "on", "COLLECTOR_JOBS_MAX_PAYLOAD_BYTES": "2000"}
    )
    with server.client() as client:
        # As `curl -d` sends it, which says that it is a form.
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Correlation-ID": "job-123",
            "Idempotency-Key": "first",
        }
        answer = client.post("/jobs", content=BODY, headers=sent)
        assert answer.status_code == 202, answer.text
        assert answer.headers["x-correlation-id"] == "job-123"
        place = answer.headers["location"]
        again = client.post("/jobs", content=BODY, headers=sent)
        assert (again.status_code, again.json()["id"]) == (202, answer.json()["id"])

        server.wait_until(lambda: client.get(place).json()["status"] == "succeeded")
        job = client.get(place).json()
        assert job["correlation_id"] == "job-123"
        assert {step["status"] for step in job["steps"]} == {"succeeded"}
        assert job["events"][-1]["status"] == "succeeded"
        assert client.post(f"{place}/cancel").status_code == 409
        listed = client.get("/jobs", params={"correlation_id": "job-123"}).json()["results"]
        assert [one["id"] for one in listed] == [job["id"]]

        refused = client.post("/jobs", content=b"x" * 2_001)
        assert problem(refused) == (413, "too_large")
        # A body whose end cannot be told is left unread: the answer says that nothing can follow.
        unread = client.post("/jobs", content=chunks())
        assert problem(unread) == (411, "length_required")
        assert unread.headers["connection"] == "close"
        assert problem(client.post("/jobs", json={"type": "none"})) == (422, "invalid")
        assert problem(client.get("/jobs/none")) == (404, "not_found")
        assert problem(client.put("/jobs", json={})) == (405, "method_not_allowed")


def chunks():
    yield BODY.encode()


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, answer.json()["code"]
