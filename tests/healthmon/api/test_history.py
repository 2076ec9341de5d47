"""Results, flips, latencies and incidents over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from control.partitions import days, tables
from healthmon.history.models import ProbeResult
from healthmon.targets.models import Target
from healthmon.truth.models import Flip, Incident
from pipeline.ids import first_id_at

pytestmark = pytest.mark.django_db


@pytest.fixture
def target() -> Target:
    return Target.objects.create(name="web", kind="tcp", address="127.0.0.1:1")


FIRST = first_id_at(int(timezone.now().timestamp() * 1e6))


def results(target_id: int, count: int, **fields) -> None:
    """So many more; ids count on from FIRST, in the partition of their day where there are any."""
    newest = ProbeResult.objects.order_by("-id").values_list("id", flat=True).first() or FIRST - 1
    if connections["records"].vendor == "postgresql":
        tables.create(connections["records"], ProbeResult._meta.db_table, [days.day_of(FIRST)])
    ProbeResult.objects.bulk_create(
        ProbeResult(
            id=newest + 1 + n,
            timestamp=timezone.now(),
            target_id=target_id,
            latency_ms=12.5,
            **{"outcome": "ok", **fields},
        )
        for n in range(count)
    )


def walk(api, path: str) -> list[dict]:
    found: list[dict] = []
    while path:
        answer = api("GET", path)
        assert answer.status_code == 200, answer.content
        body = answer.json()
        found += body["results"]
        path = body["next"]
    return found


def test_results_newest_first_page_by_page(api, target):
    results(target.pk, 5, connect_ms=1.5)
    results(target.pk + 1, 2, outcome="failed", error="refused")
    listed = walk(api, "/api/results?limit=3")
    assert [one["id"] - FIRST for one in listed] == [6, 5, 4, 3, 2, 1, 0]
    own = walk(api, f"/api/targets/{target.pk}/results?limit=2")
    assert [one["id"] - FIRST for one in own] == [4, 3, 2, 1, 0]
    assert own[0]["phases"] == {
        "dns_ms": None, "connect_ms": 1.5, "tls_ms": None, "first_byte_ms": None,
    }  # fmt: skip
    assert own[0]["code"] is None
    assert len(walk(api, "/api/results?outcome=failed")) == 2
    assert len(walk(api, f"/api/results?target={target.pk}")) == 5
    assert api("GET", "/api/results?outcome=bad").status_code == 400


def test_flips(api, target):
    for seq, (before, after) in enumerate([("new", "up"), ("up", "down")], 1):
        Flip.objects.create(
            target=target, seq=seq, from_status=before, to_status=after, at=timezone.now()
        )
    found = walk(api, f"/api/targets/{target.pk}/flips")
    assert [(one["seq"], one["from"], one["to"]) for one in found] == [
        (2, "up", "down"),
        (1, "new", "up"),
    ]


def test_latency(api, target):
    body = api("GET", f"/api/targets/{target.pk}/latency").json()
    assert (body["count"], body["p95"], body["points"]) == (0, None, [])
    for query in (
        "start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start=x", "end=0001-01-01T00:00:00",
        "points=0", "points=501", "start=1990-01-01T00:00:00Z", "end=2026-13-01T00:00:00Z",
    ):  # fmt: skip
        assert api("GET", f"/api/targets/{target.pk}/latency?{query}").status_code == 400, query


@pytest.mark.parametrize("what", ["", "/results", "/flips", "/latency"])
def test_of_no_target_there_is_nothing(api, what):
    for pk in (99_999, 10**17):
        assert api("GET", f"/api/targets/{pk}{what}").status_code == 404


class TestIncidents:
    @pytest.fixture
    def incident(self, target) -> Incident:
        now = timezone.now()
        Incident.objects.create(
            target=target,
            opened_at=now - timedelta(days=1),
            closed_at=now - timedelta(hours=23),
            opened_seq=2,
        )
        return Incident.objects.create(
            target=target, opened_at=now, opened_seq=4, cause="refused", severity="warning"
        )

    def test_list_and_filters(self, api, incident, target):
        assert [one["id"] for one in walk(api, "/api/incidents?limit=1")] == [
            incident.pk,
            incident.pk - 1,
        ]
        (found,) = walk(api, "/api/incidents?open=true")
        assert (found["id"], found["target"]) == (incident.pk, {"id": target.pk, "name": "web"})
        assert len(walk(api, "/api/incidents?open=false")) == 1
        assert len(walk(api, "/api/incidents?severity=warning")) == 1
        assert len(walk(api, f"/api/incidents?target={target.pk}")) == 2
        assert api("GET", "/api/incidents?open=maybe").status_code == 400

    def test_acknowledged_once_by_a_key(self, api_with, incident):
        api = api_with("targets", "read")
        path = f"/api/incidents/{incident.pk}"
        first = api("POST", f"{path}/acknowledge").json()
        assert first["acknowledged_at"] is not None
        again = api("POST", f"{path}/acknowledge").json()
        assert again["acknowledged_at"] == first["acknowledged_at"]
        (entry,) = again["timeline"]
        assert entry["kind"] == "acknowledged"
        assert "with the key key" in entry["text"]

    def test_comments_are_internal_unless_said_otherwise(self, api, incident):
        path = f"/api/incidents/{incident.pk}"
        assert api("POST", f"{path}/comment", {"text": "the disk is full"}).status_code == 201
        body = api("POST", f"{path}/comment", {"text": "We are on it.", "public": True}).json()
        inside, outside = body["timeline"]
        assert inside["text"] == "the disk is full\n(through the API)"
        assert (inside["public"], outside["public"]) == (False, True)
        assert outside["text"] == "We are on it."
        assert api("GET", path).json() == body

    @pytest.mark.parametrize(
        "body", [{}, {"text": ""}, {"text": " "}, {"text": "x" * 5000}, {"text": {}}]
    )
    def test_comments_that_are_none(self, api, incident, body):
        assert api("POST", f"/api/incidents/{incident.pk}/comment", body).status_code == 400

    def test_who_may_only_look_says_nothing(self, api_with, incident):
        api = api_with("read")
        path = f"/api/incidents/{incident.pk}"
        assert api("POST", f"{path}/acknowledge").status_code == 403
        assert api("POST", f"{path}/comment", {"text": "x"}).status_code == 403
        assert api("GET", path).status_code == 200

    def test_of_no_incident(self, api):
        for verb, what in (("GET", ""), ("POST", "/acknowledge"), ("POST", "/comment")):
            assert api(verb, f"/api/incidents/12345{what}", {"text": "x"}).status_code == 404


def test_a_lost_database_is_told(api, monkeypatch):
    from django.db import OperationalError

    def lost(*args, **kwargs):
        error = OperationalError("server closed the connection unexpectedly")
        raise error

    monkeypatch.setattr(ProbeResult.objects, "all", lost)
    monkeypatch.setattr("control.web.api.is_loss", lambda error: True)
    answer = api("GET", "/api/results")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
    assert answer["Retry-After"] == "5"
