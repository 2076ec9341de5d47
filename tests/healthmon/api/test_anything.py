"""Whatever is asked as the schema allows, the answer is one that the schema names."""

from __future__ import annotations

import pytest
import schemathesis
from django.core.handlers.wsgi import WSGIHandler
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


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_one_that_the_schema_names(path):
    for number in range(3):
        target = Target.objects.create(name=f"t{number}", kind="tcp", address="127.0.0.1:1")
    incident = Incident.objects.create(
        target=target, opened_at=target.created_at, opened_seq=1, cause="refused"
    )
    application = WSGIHandler()
    schema = schemathesis.openapi.from_wsgi("/api/schema?format=json", application)
    operations = schema.raw_schema["paths"][path]
    row = incident if "incidents" in path else target
    for operation in operations.values():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                # Ids that are there, besides one that is not.
                parameter["schema"] = {"type": "integer", "enum": [row.pk, 123_456]}
    for method in operations:

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(schema[path][method.upper()].as_strategy())
        def ask(case):
            answer = case.call()
            case.validate_response(answer, checks=CHECKS)

        ask()
