"""Whatever is asked of jobs as the schema allows, the answer is one that the schema names."""

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

from jobs.api import tools
from jobs.store.protocol import Draft

pytestmark = pytest.mark.django_db

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip
PATHS = ("/jobs", "/jobs/{id}", "/jobs/{id}/cancel", "/jobs/{id}/retry")


@pytest.fixture
def connection_kept():
    """As Django's own test client does: the test's transaction outlives a request."""
    for signal in (signals.request_started, signals.request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (signals.request_started, signals.request_finished):
        signal.connect(close_old_connections)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_one_that_the_schema_names(path, connection_kept, make_type):
    type = make_type("verify", payload_schema={})
    drafts = [Draft(type_id=type.pk, payload={}) for _ in range(3)]
    tools.the_store().submit(drafts)
    handler = WSGIHandler()

    def application(environ, start_response):
        # Werkzeug's client says nothing of where it is.
        return handler({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)

    schema = schemathesis.openapi.from_wsgi("/api/schema?format=json", application)
    # Not keys made up, of which there are none.
    schema.raw_schema["components"].pop("securitySchemes")
    operations = schema.raw_schema["paths"][path]
    for method, operation in operations.items():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                # Ids that are there, besides one that is not.
                known = [str(drafts[0].id), "01234567-89ab-7def-8123-456789abcdef"]
                parameter["schema"] = {"type": "string", "enum": known}
            if parameter["name"] == "type":
                parameter["schema"] = {"type": "string", "enum": ["verify", "other"]}
        wanted = {202, 422} if (path, method) == ("/jobs", "post") else {200, 202, 409}
        statuses = asked(schema[path][method.upper()], wanted)
        assert statuses & wanted, (method, statuses)


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
        if statuses & wanted:
            break
    return statuses
