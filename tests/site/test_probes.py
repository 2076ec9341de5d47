"""Probes and figures through Django's own client: who is answered, and with what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings

from control.auth.keys import create_key, keyring
from control.models import Tenant
from control.ports.readiness import register_readiness, unregister_readiness

pytestmark = pytest.mark.django_db

ELSEWHERE = {"REMOTE_ADDR": "192.0.2.7"}


@pytest.fixture
def cause() -> Iterator[list[str]]:
    causes: list[str] = []
    register_readiness("under-test", lambda: causes[0] if causes else None)
    yield causes
    unregister_readiness("under-test")


def keyed(*scopes: str) -> dict[str, Any]:
    tenant = Tenant.objects.get(slug="default")
    _, token = create_key(tenant=tenant, name="probe", scopes=list(scopes))
    keyring().refresh()
    return {**ELSEWHERE, "HTTP_AUTHORIZATION": f"Bearer {token}"}


@pytest.fixture(autouse=True)
def _fresh_keys() -> Iterator[None]:
    yield
    keyring().refresh()


def test_alive_is_answered_to_anyone(client: Client) -> None:
    answer = client.get("/healthz", **ELSEWHERE)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer["Cache-Control"] == "no-store"


def test_not_ready_names_the_cause(client: Client, cause: list[str]) -> None:
    cause.append("the moon is in the way")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) >= 1
    assert {"check": "under-test", "cause": "the moon is in the way"} in answer.json()["causes"]


def test_health_composes_both(client: Client, cause: list[str]) -> None:
    cause.append("busy")
    answer = client.get("/health")
    assert answer.status_code == 503
    body = answer.json()
    assert body["status"] == "unavailable"
    assert body["liveness"]["status"] == "ok"
    assert {"check": "under-test", "cause": "busy"} in body["readiness"]["causes"]


@pytest.mark.parametrize("path", ["/stats", "/metrics"])
def test_figures_are_for_this_machine_or_a_reading_key(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.get(path, **ELSEWHERE).status_code in (401, 403)  # type: ignore[arg-type]
    forwarded = {"HTTP_X_FORWARDED_FOR": "192.0.2.7"}
    assert client.get(path, **forwarded).status_code in (401, 403)  # type: ignore[arg-type]
    assert client.get(path, **keyed("read")).status_code == 200
    assert client.get(path, **keyed("logs")).status_code == 403


def test_metrics_can_be_made_public(client: Client) -> None:
    collector = settings.COLLECTOR
    public = replace(collector, server=replace(collector.server, public_metrics=True))
    with override_settings(COLLECTOR=public):
        assert client.get("/metrics", **ELSEWHERE).status_code == 200  # type: ignore[arg-type]
        assert client.get("/stats", **ELSEWHERE).status_code in (401, 403)  # type: ignore[arg-type]


def test_figures_are_read_only(client: Client) -> None:
    assert client.post("/metrics").status_code == 405


def test_the_start_page_leads_to_the_admin(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_an_unknown_address_is_a_problem_document(client: Client) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer["X-Request-ID"]


def test_the_schema_and_its_page_are_served(client: Client) -> None:
    schema = client.get("/api/schema")
    assert schema.status_code == 200
    assert b"/logs" in schema.content
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert b"/static/drf_spectacular_sidecar/" in page.content
    assert not re.search(rb"""(src|href)="?(https?:)?//""", page.content)


def test_the_short_list_serves_what_ingest_names_and_the_probes() -> None:
    from collector_site.wsgi import PROBES, ingest_paths

    assert {"/logs", "/health", "/event"} <= ingest_paths()
    assert "/healthz" in PROBES
    assert not any("<" in path or path.startswith("/admin") for path in ingest_paths())
