"""Whatever is asked as the schema allows, the answer is one that the schema names."""

from __future__ import annotations

import pytest
import schemathesis
from django.core import signals
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from healthmon.targets.models import Target
from healthmon.truth.models import Incident

pytestmark = pytest.mark.django_db

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip
PATHS = (
    "/api/targets", "/api/targets/{id}", "/api/targets/{id}/results", "/api/targets/{id}/flips",
    "/api/targets/{id}/latency", "/api/results", "/api/incidents", "/api/incidents/{id}",
    "/api/incidents/{id}/acknowledge", "/api/incidents/{id}/comment",
)  # fmt: skip


@pytest.fixture
def connection_kept():
    """As Django's own test client does: the test's transaction outlives a request."""
    for signal in (signals.request_started, signals.request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (signals.request_started, signals.request_finished):
        signal.connect(close_old_connections)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_one_that_the_schema_names(path, connection_kept):
    for number in range(3):
        target = Target.objects.create(name=f"t{number}", kind="tcp", address="127.0.0.1:1")
    incident = Incident.objects.create(
        target=target, opened_at=target.created_at, opened_seq=1, cause="refused"
    )
    handler = WSGIHandler()

    def application(environ, start_response):
        # Werkzeug's client says nothing of where it is.
        return handler({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)

    schema = schemathesis.openapi.from_wsgi("/api/schema?format=json", application)
    # Not keys made up, of which there are none.
    schema.raw_schema["components"].pop("securitySchemes")
    for body in schema.raw_schema["components"]["schemas"].values():
        # Fields made up are refused, and would be in nearly every body.
        body["additionalProperties"] = False
    operations = schema.raw_schema["paths"][path]
    row = incident if "incidents" in path else target
    for operation in operations.values():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                # Ids that are there, besides one that is not.
                parameter["schema"] = {"type": "integer", "enum": [row.pk, 123_456]}
    for method in operations:
        # What chance makes is hardly a target.
        wanted = set() if (path, method) == ("/api/targets", "post") else {200, 201, 202, 204}
        statuses = asked(schema[path][method.upper()], wanted)
        assert not wanted or statuses & wanted, (method, statuses)


def asked(operation, wanted: set[int]) -> set[int]:
    """Ask whatever the schema allows, until one of `wanted` was among the answers' statuses.

    What is drawn at random may be refused each time, but not for ever.
    """
    statuses: set[int] = set()

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def ask(case):
        answer = case.call()
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    for _ in range(8):
        ask()
        if not wanted or statuses & wanted:
            break
    return statuses
